// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ParseSignal takes a name with or without SIG, a real-time name (RTMIN+3,
// RTMAX-2 as kill -l counts them), or a number.
func ParseSignal(name string) (syscall.Signal, error) {
	upper := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "SIG")
	if sig := unix.SignalNum("SIG" + upper); sig != 0 {
		return sig, nil
	}
	n, err := strconv.Atoi(upper)
	if rest, ok := strings.CutPrefix(upper, "RTMIN"); ok {
		n, err = realTime(rtMin, rest)
	} else if rest, ok := strings.CutPrefix(upper, "RTMAX"); ok {
		n, err = realTime(rtMax, rest)
	}
	if err != nil || n < 1 || n > rtMax {
		return 0, fmt.Errorf("%q is not a signal: want a name such as TERM or RTMIN+3, or a number from 1 to %d", name, rtMax)
	}
	return syscall.Signal(n), nil
}

// The first and last real-time signal as libc counts them; 32 and 33 are its own.
const rtMin, rtMax = 34, 64

func realTime(base int, offset string) (int, error) {
	if offset == "" {
		return base, nil
	}
	n, err := strconv.Atoi(offset)
	if n += base; err != nil || n < rtMin {
		return 0, errors.New("not a real-time signal")
	}
	return n, nil
}

// SignalName is the usual name without SIG (TERM), or RTMIN+n.
func SignalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	if sig == rtMin {
		return "RTMIN"
	}
	if sig > rtMin {
		return "RTMIN+" + strconv.Itoa(int(sig)-rtMin)
	}
	return strconv.Itoa(int(sig))
}

func forwardedNames() string {
	var names []string
	for _, sig := range forwarded() {
		if sig < rtMin {
			names = append(names, SignalName(sig))
		}
	}
	return strings.Join(names, " ") + " RTMIN+1 to RTMAX"
}
