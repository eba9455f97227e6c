// SPDX-License-Identifier: Apache-2.0

// Command bench measures what an init costs the container that it is in:
// cleanimg-init against tini and the others that are installed, each as PID 1
// of its own pid and mount namespaces, taking turns. It prints a Markdown
// table and whether the project's budgets hold.
//
//	go run ./integration/bench          # some minutes
//	go run ./integration/bench -short   # half a minute, rough
//	go run ./integration/bench -only starts -beside OLD,OLDER   # what a change did
//
// Only ratios within one run mean anything: the same figure differs by a tenth
// and more between two runs of the same machine. Leave the machine alone
// meanwhile.
package main

import (
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed child.c.txt
var childSource []byte

// A candidate is an init, or none.
type candidate struct {
	name   string
	before []string // what comes before the command
	env    []string

	starts []start
	foot   []footprint
	signal []float64 // microseconds
	storms []storm
}

type bench struct {
	stage0, child string
	candidates    []*candidate

	starts, footprints, signals, storms, orphans int
	load                                         time.Duration
	short                                        bool

	crowd crowd
}

func main() {
	bin := flag.String("bin", "", "measure the cleanimg-init in `DIR` instead of building it")
	short := flag.Bool("short", false, "a quick run with few repetitions")
	beside := flag.String("beside", "", "measure the builds of cleanimg-init in `DIRS`, separated by commas, too")
	only := flag.String("only", "", "measure `WHAT` only: "+strings.Join(subjects, ", "))
	check := flag.Bool("check", false, "exit with 1 when a budget does not hold; not with -only")
	flag.Parse()
	holds, err := run(options{*bin, *beside, *only, *short}, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if *check && !holds {
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	bin, beside, only string
	short             bool
}

var subjects = []string{"starts", "footprint", "signals", "storm", "crowd"}

func run(o options, out io.Writer) (holds bool, err error) {
	if o.only != "" && !slices.Contains(subjects, o.only) {
		return false, fmt.Errorf("-only %s: want one of %s", o.only, strings.Join(subjects, ", "))
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	b := &bench{starts: 150, footprints: 5, signals: 500, storms: 3, orphans: 20_000, load: 10 * time.Second, short: o.short}
	if o.short {
		b.starts, b.footprints, b.signals, b.storms, b.orphans = 20, 1, 100, 1, 5_000
		b.load = 2 * time.Second
	}
	if err := b.build(dir, o.bin, o.beside); err != nil {
		return false, err
	}
	measures := []func() error{b.measureStarts, b.measureFootprints, b.measureSignals, b.measureStorms, b.measureCrowd}
	for i, subject := range subjects {
		if o.only != "" && o.only != subject {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", subject)
		if err := measures[i](); err != nil {
			return false, fmt.Errorf("measure %s: %w", subject, err)
		}
	}
	if o.only != "" {
		b.printFigures(out)
		return true, nil
	}
	return b.print(out), nil
}

// build makes what is measured and what measures, and looks for the peers.
func (b *bench) build(dir, bin, beside string) error {
	goBuild := func(pkg string) error {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s (bench runs from the top of the repository): %w", pkg, err)
		}
		return nil
	}
	if err := goBuild("./integration/testprog"); err != nil {
		return err
	}
	b.stage0 = filepath.Join(dir, "testprog")
	if err := b.buildChild(dir, goBuild); err != nil {
		return err
	}
	if bin == "" {
		if err := goBuild("./cmd/cleanimg-init"); err != nil {
			return err
		}
		bin = dir
	}
	ours, err := filepath.Abs(filepath.Join(bin, "cleanimg-init"))
	if err != nil {
		return err
	}

	b.candidates = []*candidate{{name: "none"}}
	for _, peer := range []string{"tini", "dumb-init", "catatonit"} {
		if path, err := exec.LookPath(peer); err == nil {
			b.candidates = append(b.candidates, &candidate{name: peer, before: []string{path, "--"}})
		}
	}
	probed := func(name, init string) error {
		address, err := freePort() // of its own: some are measured side by side
		b.candidates = append(b.candidates, &candidate{name: name, before: []string{init, "--"}, env: []string{"CLEANIMG_INIT_HTTP_LISTEN=" + address}})
		return err
	}
	if err := probed(withProbes, ours); err != nil {
		return err
	}
	b.candidates = append(b.candidates, &candidate{name: withoutProbes, before: []string{ours, "--"}, env: []string{"CLEANIMG_INIT_HTTP_LISTEN=off"}})
	for _, dir := range strings.FieldsFunc(beside, func(r rune) bool { return r == ',' }) {
		other := filepath.Join(dir, "cleanimg-init")
		if err := probed(other, other); err != nil {
			return err
		}
	}
	if b.find("tini") == nil {
		return errors.New("tini is not installed: everything is measured against it")
	}
	return b.unpack(dir)
}

// unpack has each init start from a copy that came to the disk as it does in an
// image's layer, which engines unpack in writes of 32 KiB. The linker of Go
// writes page by page, and then the kernel maps and unmaps them one by one: a
// tenth of the start and a quarter of the exit were due to that. And pages that
// are not on the disk yet count as memory that a program has made dirty.
func (b *bench) unpack(dir string) error {
	defer unix.Sync()
	for i, c := range b.candidates {
		if len(c.before) == 0 {
			continue
		}
		name := filepath.Join(dir, strconv.Itoa(i), filepath.Base(c.before[0]))
		if err := unpackFile(name, c.before[0]); err != nil {
			return err
		}
		c.before[0] = name
	}
	return nil
}

func unpackFile(name, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	// Without the methods of a file, which would have the kernel copy.
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 32<<10))
	return errors.Join(err, out.Close())
}

const (
	withProbes    = "cleanimg-init"
	withoutProbes = "cleanimg-init, HTTP off"
)

func (b *bench) find(name string) *candidate {
	for _, c := range b.candidates {
		if c.name == name {
			return c
		}
	}
	return nil
}

// buildChild compiles the command: static C where there is a compiler, because
// the budgets were set with such a one, else its copy in Go, which starts a
// quarter of a millisecond slower and brings all ratios nearer to 1.
func (b *bench) buildChild(dir string, goBuild func(string) error) error {
	b.child = filepath.Join(dir, "child")
	source := filepath.Join(dir, "child.c")
	if err := os.WriteFile(source, childSource, 0o600); err != nil {
		return err
	}
	if err := exec.Command("cc", "-O2", "-static", "-o", b.child, source).Run(); err == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, "bench: no C compiler for static programs: the command is written in Go, which flatters every ratio")
	return goBuild("./integration/bench/child")
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func machine() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d CPUs, Linux %s%s", runtime.NumCPU(), release, runtime.Version())
}
