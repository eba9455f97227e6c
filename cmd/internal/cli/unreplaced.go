// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"regexp"

	"github.com/spf13/pflag"
)

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)

// WarnUnreplaced warns of a $(NAME) in a value, which Kubernetes leaves as it is
// where the container has no such variable. With it in a URL the server would
// speak of a wrong password. What is where the value stands.
func (p *Process) WarnUnreplaced(what, value string) {
	if m := reference.FindStringSubmatch(value); m != nil {
		// Without $( and ), which may be what the log takes for a password.
		p.Log.Warn(fmt.Sprintf("%s: the reference to %s is not replaced: Kubernetes does that where it is in env of the same container, above its use", what, m[1]))
	}
}

// warnUnreplaced does it for all that was given.
func (f *Flags) warnUnreplaced(p *Process) {
	f.Visit(func(flag *pflag.Flag) {
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			p.WarnUnreplaced("--"+flag.Name, value)
		}
	})
	for i, word := range p.Args {
		if p.Dash < 0 || i < p.Dash { // the rest is for another program
			p.WarnUnreplaced("argument", word)
		}
	}
}
