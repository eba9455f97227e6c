// SPDX-License-Identifier: Apache-2.0

// Command throttling measures what the clock of a step charges while the
// kernel throttles its container: real processes under real CPU limits, on
// cgroup v1 or v2. It prints the table of docs/timeouts.md.
//
//	go run ./integration/throttling         # as root; half a minute
//	go run ./integration/throttling -write  # the table and the picture in docs, too
//	go run ./integration/throttling -draw   # these again, of what was measured last
//
// A load runs in a group of its own, which is made and removed; nothing else
// on the machine is touched. Leave it alone meanwhile.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// The files that -write makes, from the top of the repository.
const (
	measuredPath = "integration/throttling/measured.json"
	figurePath   = "docs/timeouts.svg"
	pagePath     = "docs/timeouts.md"
)

func main() {
	if os.Getenv(loadVariable) != "" {
		os.Exit(underLoad())
	}
	write := flag.Bool("write", false, "write the table and the picture in docs/; run it at the top of the repository")
	again := flag.Bool("draw", false, "write them as they were measured last")
	flag.Parse()
	todo := func() error { return run(*write) }
	if *again {
		todo = func() error { return redraw(".") }
	}
	if err := todo(); err != nil {
		fmt.Fprintln(os.Stderr, "throttling:", err)
		os.Exit(1)
	}
}

func run(write bool) error {
	var m measured
	for i, l := range append(rows(), curves()...) {
		o, err := measure(l)
		if err != nil {
			return fmt.Errorf("%s at %s: %w", l.What, l.limit(), err)
		}
		if write && o.starved() {
			return fmt.Errorf("%s at %s: throttled in %d of %d periods only: the machine is too busy with something else", l.What, l.limit(), o.Throttled, o.Periods)
		}
		if i < len(rows()) {
			m.Rows = append(m.Rows, o)
		} else {
			m.Curves = append(m.Curves, o)
		}
	}
	fmt.Print(table(m.Rows))
	if !write {
		return nil
	}
	text, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(measuredPath, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return draw(".", m)
}

// measured is all of one run.
type measured struct{ Rows, Curves []observed }

// redraw writes what is made of the last run, in a repository.
func redraw(top string) error {
	var m measured
	text, err := os.ReadFile(filepath.Join(top, measuredPath))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	return draw(top, m)
}

// draw writes what is made of it, in a repository.
func draw(top string, m measured) error {
	if err := os.WriteFile(filepath.Join(top, figurePath), []byte(figure(m.Curves)), 0o644); err != nil {
		return err
	}
	name := filepath.Join(top, pagePath)
	page, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	text, err := withTable(string(page), table(m.Rows))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(text), 0o644)
}
