// SPDX-License-Identifier: Apache-2.0

package hooks

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var errDuration = errors.New("accepted are durations like 90s, 5m, 250ms, a number of seconds, and 0 for none")

// ParseDuration reads a duration as Go writes it, or a bare number of seconds.
// It is never negative.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		seconds, err := strconv.ParseFloat(s, 64)
		if err != nil || strings.Trim(s, "+0123456789.") != "" || !(seconds*float64(time.Second) < math.MaxInt64) {
			return 0, errDuration
		}
		d = time.Duration(seconds * float64(time.Second))
	}
	if d < 0 {
		return 0, errDuration
	}
	return d, nil
}
