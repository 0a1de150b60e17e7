//go:build !race

package flush

const sweep = 1
