//go:build race

package optimizer

// sweep is how many points a crash sweep goes at a time, and by how much fewer random histories there are: the race detector makes
// each cost several times as much.
const sweep = 10
