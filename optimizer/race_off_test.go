//go:build !race

package optimizer

const sweep = 1
