// SPDX-License-Identifier: Apache-2.0

// Command await measures await beside what others use in its place: how soon it
// notices that a port has opened, what a run costs with nothing to wait for, a
// thousand services at once, memory and size. It prints a table of Markdown.
// Only ratios within one run mean anything; leave the machine alone meanwhile.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	short := flag.Bool("short", false, "a quick run with few repetitions")
	flag.Parse()
	if err := run(*short, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(short bool, out io.Writer) error {
	dir, err := os.MkdirTemp("", "bench-await-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	waiters, err := findWaiters(dir)
	if err != nil {
		return err
	}
	trials, runs, rounds := 60, 40, 5
	if short {
		trials, runs, rounds = 10, 5, 1
	}
	if err := measure(waiters, trials, runs, rounds); err != nil {
		return err
	}
	fmt.Fprintf(out, "Medians; %d ports that open 1 to 4 s after the start, %d runs with an open port, %d with %d of them; × is against await.\n\n", trials, runs, rounds, manyPorts)
	printTable(out, waiters)
	return nil
}

// printTable writes a row for each of them; the first one is ours.
func printTable(out io.Writer, waiters []*waiter) {
	row(out, "program", "noticed after ms", "p90", "×", "open port ms", "×", "RSS MB", fmt.Sprintf("%d ports ms", manyPorts), "×", "RSS MB", "binary MB")
	row(out, strings.Split(strings.Repeat("---,", 10)+"---", ",")...)
	median := func(values []float64) float64 { return quantile(values, 0.5) }
	ours := waiters[0]
	for _, w := range waiters {
		many := []string{"–", "–", "–"}
		if !w.unusable {
			many = []string{number(median(w.many), 0), ratio(median(w.many), median(ours.many)), number(w.manyRSS, 1)}
		}
		cells := []string{
			w.name, number(median(w.noticed), 0), number(quantile(w.noticed, 0.9), 0), ratio(median(w.noticed), median(ours.noticed)),
			number(median(w.open), 1), ratio(median(w.open), median(ours.open)), number(w.rss, 1),
		}
		row(out, append(append(cells, many...), number(float64(w.size)/1e6, 1))...)
	}
}

// build builds await as it is released, without the protocols of the tags.
func build(dir, tags string) (string, error) {
	path := filepath.Join(dir, "await"+tags)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-tags", tags, "-o", path, "./cmd/await")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build await (the benchmark runs from the top of the repository): %w: %s", err, out)
	}
	return path, nil
}

func row(out io.Writer, cells ...string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }

func number(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) }

// ratio is a value as a multiple of ours.
func ratio(v, ours float64) string {
	if v == 0 || ours == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v/ours)
}

// quantile is the value below which a part p of all is.
func quantile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}
