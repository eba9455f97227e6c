// SPDX-License-Identifier: Apache-2.0

// Command testreport runs "go test" with the arguments given and ends with
// one list of what this machine could not run, and why. After "--" come the
// arguments of another run, which counts with the first one:
//
//	testreport -race ./... -- -C other/module ./...
//
// It prints go test's line for every package and the output of what failed.
// The last line is "ok" or "FAIL" with the counts, in the form of go test's
// own lines, and the exit code is go test's.
//
// With CI=true in the environment a skipped test is a failure, unless a line
// of .ci/allowed-skips matches it: a CI machine can install what a test needs.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

const allowedSkips = ".ci/allowed-skips"

func main() {
	code, err := run(os.Args[1:], os.Getenv("CI") == "true", os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "testreport: %v\n", err)
	}
	os.Exit(code)
}

// run is the program without the process around it. With strict set, a skip
// that allowedSkips does not know makes the code 1.
func run(args []string, strict bool, stdout, stderr io.Writer) (code int, err error) {
	var allowed []*regexp.Regexp
	if strict {
		if allowed, err = readAllowed(allowedSkips); err != nil {
			return 1, err
		}
	}

	var notes []string
	if args, err = withoutRace(args, &notes); err != nil {
		return 1, err
	}

	start := time.Now()
	tally := newTally(stdout)
	for _, args := range runs(args) {
		one, err := goTest(args, tally, stderr)
		if err != nil {
			return max(one, 1), err
		}
		code = max(code, one)
	}
	return tally.close(stdout, code, allowed, strict, notes, time.Since(start)), nil
}

// runs are the arguments of each "go test".
func runs(args []string) [][]string {
	var all [][]string
	for {
		end := slices.Index(args, "--")
		if end < 0 {
			return append(all, args)
		}
		all = append(all, args[:end])
		args = args[end+1:]
	}
}

// goTest runs one "go test" and returns its exit code.
func goTest(args []string, tally *tally, stderr io.Writer) (code int, err error) {
	command := []string{"test"}
	if len(args) >= 2 && args[0] == "-C" { // go wants it before everything else
		command, args = append(command, args[:2]...), args[2:]
	}
	cmd := exec.Command("go", append(append(command, "-json"), args...)...)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	readErr := tally.read(out)
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return 1, err
		}
		code = max(exit.ExitCode(), 1)
	}
	if readErr != nil {
		return code, fmt.Errorf("read the output of go test: %w", readErr)
	}
	return code, nil
}

// withoutRace drops -race where there is no C compiler, which the race
// detector needs, and notes it: a machine with Go only runs everything else.
func withoutRace(args []string, notes *[]string) ([]string, error) {
	if !slices.Contains(args, "-race") {
		return args, nil
	}
	cc, err := exec.Command("go", "env", "CC").Output()
	if err != nil {
		return nil, fmt.Errorf("go env CC: %w", err)
	}
	name, _, _ := strings.Cut(strings.TrimSpace(string(cc)), " ")
	if _, err := exec.LookPath(name); err == nil {
		return args, nil
	}
	*notes = append(*notes, fmt.Sprintf("the race detector: it needs a C compiler (%s)", name))
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-race" }), nil
}

// readAllowed reads one regular expression a line; empty lines and those that
// start with # are left out.
func readAllowed(path string) ([]*regexp.Regexp, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var allowed []*regexp.Regexp
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		re, err := regexp.Compile(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		allowed = append(allowed, re)
	}
	return allowed, nil
}

// event is a line of go test -json; "go doc cmd/test2json" describes it.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// A skip is a test that did not run, with the reason that it gave.
type skip struct{ test, reason string }

func (s skip) String() string { return s.test + ": " + s.reason }

// A tally reads the events and counts how each test ended.
type tally struct {
	stdout  io.Writer
	output  map[[2]string]*strings.Builder // by package and test, until it has ended
	passed  int
	failed  []string
	skipped []skip
}

func newTally(stdout io.Writer) *tally {
	return &tally{stdout: stdout, output: map[[2]string]*strings.Builder{}}
}

// read blocks until r ends. A line that is not an event is printed as it is.
func (t *tally) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				t.stdout.Write(line)
			} else {
				t.event(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tally) event(e event) {
	key := [2]string{e.Package, e.Test}
	switch e.Action {
	case "output":
		if t.output[key] == nil {
			t.output[key] = &strings.Builder{}
		}
		t.output[key].WriteString(e.Output)
		return
	case "build-output":
		io.WriteString(t.stdout, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}

	var output string
	if b := t.output[key]; b != nil {
		output = b.String()
	}
	delete(t.output, key)
	if e.Test == "" {
		t.endPackage(e, output)
		return
	}
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed = append(t.failed, shortPackage(e.Package)+" "+e.Test)
		io.WriteString(t.stdout, output)
	case "skip":
		t.skipped = append(t.skipped, skip{shortPackage(e.Package) + " " + e.Test, skipReason(output)})
	}
}

// endPackage prints go test's line for the package, and all that is left of
// one that failed: a panic's trace may stand with a test that never ended.
func (t *tally) endPackage(e event, output string) {
	if e.Action == "fail" {
		for key, b := range t.output {
			if key[0] == e.Package {
				io.WriteString(t.stdout, b.String())
				delete(t.output, key)
			}
		}
		io.WriteString(t.stdout, output)
		return
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, "ok ") {
			io.WriteString(t.stdout, line)
		}
	}
}

// close prints the list and the last line, and returns the exit code.
func (t *tally) close(w io.Writer, code int, allowed []*regexp.Regexp, strict bool, notes []string, took time.Duration) int {
	refused := 0
	byReason := map[string][]string{}
	for _, s := range t.skipped {
		reason := s.reason
		if strict && !slices.ContainsFunc(allowed, func(re *regexp.Regexp) bool { return re.MatchString(s.String()) }) {
			refused++
			reason += " [must run in CI, or be in " + allowedSkips + "]"
		}
		byReason[reason] = append(byReason[reason], s.test)
	}
	for _, note := range notes {
		if strict {
			refused++
			note += " [must run in CI]"
		}
		byReason[note] = nil
	}
	printReasons(w, byReason)
	if len(t.failed) > 0 {
		fmt.Fprintf(w, "\nFailed:\n  %s\n", strings.Join(t.failed, "\n  "))
	}

	verdict := "ok  "
	if code == 0 && refused > 0 {
		code = 1
	}
	if code != 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(w, "%s\t%d passed, %d failed, %d not run\t%.1fs\n", verdict, t.passed, len(t.failed), len(t.skipped), took.Seconds())
	return code
}

func printReasons(w io.Writer, byReason map[string][]string) {
	if len(byReason) == 0 {
		fmt.Fprintln(w, "\nNothing was left out on this machine.")
		return
	}
	fmt.Fprintln(w, "\nNot run on this machine:")
	reasons := make([]string, 0, len(byReason))
	for reason := range byReason {
		reasons = append(reasons, reason)
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		fmt.Fprintf(w, "  %s\n", reason)
		for _, test := range byReason[reason] {
			fmt.Fprintf(w, "      %s\n", test)
		}
	}
}

var location = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// skipReason is the last message that the test logged: t.Skip's.
func skipReason(output string) string {
	reason := "no reason given"
	for line := range strings.Lines(output) {
		if at := location.FindStringIndex(line); at != nil {
			reason = strings.TrimSpace(line[at[1]:])
		}
	}
	return reason
}

// shortPackage is the path inside the module.
func shortPackage(path string) string {
	const module = "github.com/cleanstart-dev/cleanimg-init/"
	return strings.TrimPrefix(path, module)
}
