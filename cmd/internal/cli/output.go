// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// terminationLog is what the kubelet shows in the pod's status; messageMax
// leaves room for the pod's other containers.
const (
	terminationLog = "/dev/termination-log"
	messageMax     = 1000
)

// newLogger returns a logger that removes secrets.
func newLogger(w io.Writer, redact *report.Redactor, format logFormat, level slog.Level) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	w = redacted{w, redact}
	if format == "json" {
		o.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration { // 10m0s as in text, not nanoseconds
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// redacted takes whole lines, as slog writes them.
type redacted struct {
	w      io.Writer
	redact *report.Redactor
}

func (r redacted) Write(line []byte) (int, error) {
	if _, err := r.w.Write(r.redact.Bytes(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// complain prints each problem as a line of its own.
func complain(w io.Writer, tool, text string, format logFormat) {
	if format == "json" {
		slog.New(slog.NewJSONHandler(w, nil)).Error(text)
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(w, "%s: %s\n", tool, line)
	}
}

// writeTermination replaces the content of the file that the kubelet made. It
// is never created, and that it is missing is no problem.
func writeTermination(path, text string) {
	if len(text) > messageMax {
		cut := messageMax
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	// NONBLOCK: a named pipe without a reader must not stop us.
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		// Cut afterwards, so that whoever kills us never leaves it empty.
		_, _ = f.WriteString(text)
		_ = f.Truncate(int64(len(text)))
	}
}
