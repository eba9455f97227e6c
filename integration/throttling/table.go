// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// table is the Markdown table of the rows.
func table(rows []observed) string {
	var b strings.Builder
	b.WriteString("| the step | limit | wall time | CPU time | throttled in | **charged** |\n|---|---|---|---|---|---|\n")
	for _, o := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d of %d periods | **%s** |\n",
			o.What, o.limit(), seconds(o.Wall), seconds(o.CPUTime), o.Throttled, o.Periods, seconds(o.Charged))
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// The lines of the page around the table.
const (
	tableBegin = "<!-- measured with: make figures -->\n"
	tableEnd   = "<!-- end of what was measured -->\n"
)

// withTable puts the table in the page.
func withTable(page, table string) (string, error) {
	before, rest, begins := strings.Cut(page, tableBegin)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return "", errors.New("the marks around the table are gone")
	}
	return before + tableBegin + "\n" + table + "\n" + tableEnd + after, nil
}
