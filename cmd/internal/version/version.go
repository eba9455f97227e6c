// SPDX-License-Identifier: Apache-2.0

// Package version says which build a binary is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is set when a release is linked.
var Version = "dev"

// Describe returns the version with the commit that it was built from, the
// toolchain and the platform.
func Describe() string {
	text := Version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return text
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))] + ", "
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "modified, "
		}
	}
	return fmt.Sprintf("%s (%s%s%s, %s/%s)", text, revision, dirty, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}
