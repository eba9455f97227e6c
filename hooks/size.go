// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// units are those of Kubernetes' quantities.
var units = [...]struct {
	suffix string
	factor float64
}{
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"Pi", 1 << 50},
	{"k", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"T", 1e12},
	{"P", 1e15},
	{"", 1},
}

var errSize = errors.New("accepted are sizes like 512Mi, 1.5Gi, 500M, and a number of bytes")

// ParseSize reads a number of bytes as Kubernetes writes them: 1Gi, 500M, 4096.
func ParseSize(s string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" || n*u.factor >= math.MaxInt64 {
			break
		}
		return int64(n * u.factor), nil
	}
	return 0, errSize
}
