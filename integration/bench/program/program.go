// SPDX-License-Identifier: Apache-2.0

// Package program builds programs and measures what a run of one takes, for the
// benchmarks of the tools.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Build builds ./cmd/NAME as it is released, into dir, and returns its path.
func Build(dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s (the benchmark runs from the top of the repository): %w: %s", name, err, out)
	}
	return path, nil
}

// Install builds a program of a module, "example.com/x/cmd/y@latest", into dir,
// and returns its path.
func Install(dir, module string) (string, error) {
	name, _, _ := strings.Cut(filepath.Base(module), "@")
	bin := filepath.Join(dir, strings.NewReplacer("/", "-", "@", "-").Replace(module)) // two may have one name
	cmd := exec.Command("go", "install", "-trimpath", "-ldflags", "-s -w", module)
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("go install %s: %s", module, lines[len(lines)-1])
	}
	return filepath.Join(bin, name), nil
}

// A Usage is what a run took.
type Usage struct {
	Wall, CPU time.Duration
	RSS       int64 // bytes, of the largest process
}

// Add makes u that of several runs, one after another.
func (u *Usage) Add(v Usage) {
	u.Wall, u.CPU, u.RSS = u.Wall+v.Wall, u.CPU+v.CPU, max(u.RSS, v.RSS)
}

// Run runs cmd to its end. What it writes to standard error is in the error.
func Run(cmd *exec.Cmd) (u Usage, err error) {
	var complaint strings.Builder
	if cmd.Stderr == nil {
		cmd.Stderr = &complaint
	}
	start := time.Now()
	err = cmd.Run()
	u.Wall = time.Since(start)
	if cmd.ProcessState != nil {
		rusage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		u.CPU, u.RSS = cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), int64(rusage.Maxrss)<<10
	}
	if err != nil {
		return u, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, complaint.String())
	}
	return u, nil
}

// Median returns the middle one of what of says of each run.
func Median(runs []Usage, of func(Usage) float64) float64 {
	values := make([]float64, 0, len(runs))
	for _, u := range runs {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// Columns are the median figures of runs as cells of a Markdown table: wall
// and CPU milliseconds, resident megabytes, and the program's own.
func Columns(runs []Usage, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.0f | %.0f | %.1f | %.1f",
		Median(runs, func(u Usage) float64 { return u.Wall.Seconds() * 1000 }),
		Median(runs, func(u Usage) float64 { return u.CPU.Seconds() * 1000 }),
		Median(runs, func(u Usage) float64 { return float64(u.RSS) / 1e6 }), float64(info.Size())/1e6), nil
}
