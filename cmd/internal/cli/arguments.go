// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"regexp"
	"slices"
	"strings"
	"unsafe"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// hideSecrets returns a copy of the arguments, and overwrites the users and
// passwords of URLs, what follows password= and its like, headers in the
// fragments of URLs, and the values of the options named by secret in the
// original: the kernel shows that memory to everybody who looks at the list of
// processes. What follows a -- stays.
func hideSecrets(args []string, secret ...string) []string {
	kept := make([]string, len(args))
	for i, arg := range args {
		kept[i] = strings.Clone(arg)
	}
	for i := 1; i < len(args) && kept[i] != "--"; i++ {
		shown := hidden(kept[i])
		option, value, assigned := strings.Cut(kept[i], "=")
		switch {
		case assigned && isOption(option, secret):
			shown = option + "=" + strings.Repeat("x", len(value))
		case isOption(kept[i-1], secret):
			shown = strings.Repeat("x", len(kept[i]))
		}
		if shown == kept[i] {
			continue
		}
		// The strings of os.Args are the memory that execve(2) made.
		memory := unsafe.Slice(unsafe.StringData(args[i]), len(args[i]))
		for n := copy(memory, shown); n < len(memory); n++ {
			memory[n] = ' '
		}
	}
	return kept
}

// requestHeader is what await sends with a request: in the fragment of a URL.
var requestHeader = regexp.MustCompile(`[#&]request-header=[^&]+`)

func isOption(word string, names []string) bool {
	name, ok := strings.CutPrefix(word, "--")
	return ok && slices.Contains(names, name)
}

// hidden is the argument as others may see it, about as long as it is.
func hidden(arg string) string {
	if at := strings.Index(arg, "://"); at >= 0 {
		at += len("://")
		if end := strings.LastIndexByte(arg, '@'); end > at {
			arg = arg[:at] + strings.Repeat("x", end-at) + arg[end:]
		}
	}
	arg = requestHeader.ReplaceAllStringFunc(arg, func(header string) string {
		name, value, _ := strings.Cut(header, "=")
		return name + "=" + strings.Repeat("x", len(value))
	})
	return (*report.Redactor)(nil).String(arg)
}
