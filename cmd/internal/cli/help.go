// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cleanstart-dev/cleanimg-init/cmd/internal/layout"
)

const (
	exitCodes = `  0    done
  125  a bad setting, or what it was asked for cannot be done
  143  stopped by TERM; 128+n by signal n
`
	exitCodeTimeout = "  124  a timeout\n" // of tools that have one
)

// printHelp prints the help from the table of options that parses them.
func (f *Flags) printHelp(w io.Writer, t Tool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n%s\n\n%s\n\n", indent(t.Usage), strings.TrimSpace(t.About))
	durations, lists := f.kinds()
	about := fmt.Sprintf("Every option has a variable: %s is --%s. The option wins over the variable, and that over the default. ", t.variable(f.first()), f.first())
	if lists {
		about += "Where an option may be repeated (…), the values in its variable are separated by white space. "
	}
	about += "Where a variable would hold a secret, its name with _FILE added names a file with the value. "
	if durations {
		about += "Durations: 5m, 250ms, or a number of seconds."
	}
	b.WriteString(layout.Wrap("", about) + "\nOptions:\n")
	f.VisitAll(func(flag *pflag.Flag) { b.WriteString(describe(flag)) })
	if t.Notes != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(t.Notes))
	}
	codes := exitCodes + t.Codes
	if durations {
		codes += exitCodeTimeout
	}
	b.WriteString("\nExit codes:\n" + strings.Join(slices.Sorted(strings.Lines(codes)), ""))
	_, err := io.WriteString(w, b.String())
	return err
}

// first is the option that serves as an example: the first that takes a value.
func (f *Flags) first() (name string) {
	f.VisitAll(func(flag *pflag.Flag) {
		if name == "" && flag.Value.Type() != "bool" {
			name = flag.Name
		}
	})
	return name
}

// kinds tells whether any option is a duration, and whether any may be repeated.
func (f *Flags) kinds() (durations, lists bool) {
	f.VisitAll(func(flag *pflag.Flag) {
		_, duration := flag.Value.(*duration)
		_, list := flag.Value.(pflag.SliceValue)
		durations, lists = durations || duration, lists || list
	})
	return durations, lists
}

// describe is one option in the help. Its usage says in back quotes what the
// value is, "`PATH` where the file goes", or the type of the value does.
func describe(flag *pflag.Flag) string {
	value, usage := strings.ToUpper(flag.Value.Type()), flag.Usage
	if rest, ok := strings.CutPrefix(usage, "`"); ok {
		value, usage, _ = strings.Cut(rest, "` ")
	}
	if value = " " + value; flag.Value.Type() == "bool" {
		value = ""
	}
	if _, ok := flag.Value.(pflag.SliceValue); ok {
		value += " …"
	}
	short := ""
	if flag.Shorthand != "" {
		short = "-" + flag.Shorthand + ", "
	}
	if def := flag.DefValue; !slices.Contains([]string{"", "false", "[]", "0"}, def) {
		usage += " (default " + def + ")"
	}
	return fmt.Sprintf("  %s--%s%s\n%s", short, flag.Name, value, layout.Wrap("      ", usage))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
