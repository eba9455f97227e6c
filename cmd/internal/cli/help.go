// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

const exitCodes = `  0    done
  124  a timeout
  125  a bad setting, or what it was asked for cannot be done
  143  stopped by TERM; 128+n by signal n
`

// printHelp prints the help from the table of options that parses them.
func (f *Flags) printHelp(w io.Writer, t Tool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n%s\n\n%s\n\n", indent(t.Usage), strings.TrimSpace(t.About))
	fmt.Fprintf(&b, "Every option has a variable: %s is --%s. The option wins over the\n", t.variable(f.first()), f.first())
	b.WriteString("variable, and that over the default; an option that may be repeated takes its\n" +
		"values from the variable separated by white space. Where a variable would hold\n" +
		"a secret, its name with _FILE added names a file with the value.\n" +
		"Durations: 5m, 250ms, or a number of seconds.\n\nOptions:\n")
	f.VisitAll(func(flag *pflag.Flag) { b.WriteString(describe(flag)) })
	if t.Notes != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(t.Notes))
	}
	codes := slices.Sorted(strings.Lines(exitCodes + t.Codes))
	b.WriteString("\nExit codes:\n" + strings.Join(codes, ""))
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

// describe is one option in the help.
func describe(flag *pflag.Flag) string {
	metavar, usage := pflag.UnquoteUsage(flag)
	if metavar = strings.ToUpper(metavar); flag.Value.Type() == "bool" {
		metavar = ""
	} else if metavar != "" {
		metavar = " " + metavar
	}
	if _, ok := flag.Value.(pflag.SliceValue); ok {
		metavar += " …"
	}
	short := ""
	if flag.Shorthand != "" {
		short = "-" + flag.Shorthand + ", "
	}
	def := flag.DefValue
	if def == "" || def == "false" || def == "[]" || def == "0" || def == "0s" {
		return fmt.Sprintf("  %s--%s%s\n      %s\n", short, flag.Name, metavar, usage)
	}
	return fmt.Sprintf("  %s--%s%s\n      %s (default %s)\n", short, flag.Name, metavar, usage, def)
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
