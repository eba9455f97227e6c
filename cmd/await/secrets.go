// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"unsafe"
)

// hideSecrets returns a copy of the arguments, and overwrites the users and
// passwords of URLs in the original: the kernel shows that memory to everybody
// who looks at the list of processes. The command's own arguments stay.
func hideSecrets(args []string) []string {
	kept := make([]string, len(args))
	end := len(args)
	if i := slices.Index(args, "--"); i >= 0 {
		end = i
	}
	for i, arg := range args {
		kept[i] = strings.Clone(arg)
		from, to := userInfo(kept[i])
		if i == 0 || i >= end || from == to {
			continue
		}
		// The strings of os.Args are the memory that execve(2) made.
		memory := unsafe.Slice(unsafe.StringData(arg), len(arg))
		for n := from; n < to; n++ {
			memory[n] = 'x'
		}
	}
	return kept
}

// userInfo is where the user and password of a URL are.
func userInfo(arg string) (from, to int) {
	from = strings.Index(arg, "://")
	if from < 0 {
		return 0, 0
	}
	from += len("://")
	to = strings.LastIndexByte(arg, '@')
	if to < from {
		return 0, 0
	}
	return from, to
}
