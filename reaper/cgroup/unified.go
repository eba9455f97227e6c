// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"bytes"
	"slices"
)

// Unified is the directory of our group in the cgroup v2 hierarchy, whether or
// not that has any controllers, or "" where it is not visible.
func (w Where) Unified() string {
	w = w.filled()
	text, err := readFile(w.Proc+"/self/cgroup", slices.Grow([]byte(nil), 4096))
	if err != nil {
		return ""
	}
	_, group := memberships(text)
	if group == "" {
		return ""
	}
	if text, err = readFile(w.Proc+"/self/mountinfo", text); err != nil {
		return ""
	}
	for line := range bytes.SplitSeq(text, newline) {
		if m, ok := parseMount(line); ok && m.v2 {
			if at := w.locate(m, group); at.dir != "" {
				return at.dir
			}
		}
	}
	return ""
}
