//go:build race

package flush

// sweep is how many points a crash sweep goes at a time, and by how much fewer random histories there are: the race detector makes
// each cost several times as much.
const sweep = 5
