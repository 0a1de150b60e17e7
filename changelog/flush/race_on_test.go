//go:build race

package flush

// sweep is how many points a crash sweep goes at a time: the race detector makes each cost several times as much.
const sweep = 5
