// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

// print writes the tables, and tells whether all budgets hold.
func (b *bench) print(out io.Writer) (holds bool) {
	fmt.Fprintf(out, "%s; medians of %d starts, %d footprints, %d signals, %d storms of %d orphans; × is against tini in this run\n\n",
		strings.ReplaceAll(machine(), "\n", ", "), b.starts, b.footprints, b.signals, b.storms, b.orphans)
	b.printFigures(out)
	fmt.Fprintln(out)
	b.printCrowd(out)
	fmt.Fprintln(out)
	return b.printBudgets(out)
}

func (b *bench) printFigures(out io.Writer) {
	tini, none := summarize(b.find("tini")), summarize(b.find("none"))
	header := []string{
		"init", "start µs", "×", "added µs", "×", "faults", "exit µs", "×", "RSS kB", "dirty kB", "threads", "wake-ups/s",
		"signal µs", "p99", "×", "CPU µs/orphan", "orphans/s", "most zombies", "left",
	}
	row(out, header...)
	row(out, strings.Split(strings.Repeat("---,", len(header)-1)+"---", ",")...)
	for _, c := range b.candidates {
		s := summarize(c)
		cells := []string{
			c.name, number(s.toMain, 0), ratio(s.toMain, tini.toMain), number(s.toMain-none.toMain, 0), ratio(s.toMain-none.toMain, tini.toMain-none.toMain),
			number(s.faults, 0), number(s.exit, 0), ratio(s.exit, tini.exit), number(s.rss, 0), number(s.dirty, 0), number(s.threads, 0), number(s.switches, 1),
			number(s.signal, 0), number(s.signal99, 0), ratio(s.signal, tini.signal),
			number(s.cpu, 1), number(s.rate, 0), number(s.zombies, 0), number(s.left, 0),
		}
		if c.name == "none" {
			for i := 15; i < len(cells); i++ {
				cells[i] = "–"
			}
			cells[3], cells[4] = "–", "–"
		}
		row(out, cells...)
	}
}

// printCrowd tells of the probes of cleanimg-init; the others have none.
func (b *bench) printCrowd(out io.Writer) {
	fmt.Fprintf(out, "%d probes a second for %v, among %d idle clients and %d slow ones:\n\n", probesPerSecond, b.load, idleClients, slowClients)
	row(out, "probes", "failed", "median ms", "p99 ms", "slowest ms", "RSS before kB", "at most kB")
	row(out, "---", "---", "---", "---", "---", "---", "---")
	c := b.crowd
	row(out, fmt.Sprint(c.asked), fmt.Sprint(c.failed), number(c.p50, 2), number(c.p99, 2), number(c.slowest, 1), number(c.rss, 0), number(c.most, 0))
}

// summary is one candidate's figures.
type summary struct {
	start
	footprint
	signal, signal99         float64
	cpu, rate, zombies, left float64
}

func summarize(c *candidate) summary {
	return summary{
		start: start{
			toMain: median(c.starts, func(s start) float64 { return s.toMain }),
			exit:   median(c.starts, func(s start) float64 { return s.exit }),
			faults: median(c.starts, func(s start) float64 { return s.faults }),
		},
		footprint: footprint{
			rss:      median(c.foot, func(f footprint) float64 { return f.rss }),
			dirty:    median(c.foot, func(f footprint) float64 { return f.dirty }),
			threads:  median(c.foot, func(f footprint) float64 { return f.threads }),
			switches: median(c.foot, func(f footprint) float64 { return f.switches }),
		},
		signal:   median(c.signal, func(us float64) float64 { return us }),
		signal99: quantile(c.signal, func(us float64) float64 { return us }, 0.99),
		cpu:      median(c.storms, func(s storm) float64 { return s.cpu }),
		rate:     median(c.storms, func(s storm) float64 { return s.rate }),
		zombies:  median(c.storms, func(s storm) float64 { return s.most }),
		left:     most(c.storms, func(s storm) float64 { return s.left }),
	}
}

// printBudgets compares the init with probes on to what the project allows
// itself.
func (b *bench) printBudgets(out io.Writer) (holds bool) {
	tini, ours := summarize(b.find("tini")), summarize(b.find(withProbes))
	budgets := []struct {
		figure      string
		got         float64
		budget, aim float64
		digits      int
	}{
		{"start-to-exec, × tini", ours.toMain / tini.toMain, 1.7, 1.4, 2},
		{"page faults of a no-op run", ours.faults, 560, 460, 0},
		{"exit latency, × tini", ours.exit / tini.exit, 3.0, 2.5, 2},
		{"idle RSS, MB", ours.rss / 1000, 6, 4.5, 1},
		{"idle private dirty, MB", ours.dirty / 1000, 1.6, 1.2, 1},
		{"signal forwarding latency, × tini", ours.signal / tini.signal, 3, 2, 2},
		{"CPU per reaped orphan, µs", ours.cpu, 8, 5, 1},
		{"idle wake-ups per second", ours.switches, 0, 0, 1},
		{"orphans left after a storm", ours.left, 0, 0, 0},
		{"most zombies seen in a storm", ours.zombies, 100, 30, 0},
		{"probes that fail in a crowd", float64(b.crowd.failed), 0, 0, 0},
		{"99 of 100 probes in a crowd, ms", b.crowd.p99, 10, 5, 1},
	}
	holds = true
	row(out, "figure", "measured", "budget", "aim", "holds")
	row(out, "---", "---", "---", "---", "---")
	for _, f := range budgets {
		verdict := "yes"
		switch {
		// What is printed as the budget is within the budget.
		case number(f.got, f.digits) != number(f.budget, f.digits) && f.got > f.budget:
			verdict, holds = "**no**", false
		case f.got <= f.aim:
			verdict = "yes, and the aim"
		}
		row(out, f.figure, number(f.got, f.digits), fmt.Sprint(f.budget), fmt.Sprint(f.aim), verdict)
	}
	return holds
}

func row(out io.Writer, cells ...string) {
	fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
}

func number(v float64, digits int) string { return fmt.Sprintf("%.*f", digits, v) }

func ratio(v, base float64) string {
	if base <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", v/base)
}
