// SPDX-License-Identifier: Apache-2.0

// Command volume measures fetch beside curl, and init-storage beside chown and
// chmod, in memory (a tmpfs), so that it is not the disk that is measured. It
// prints a table of Markdown. It must be run as root.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/integration/bench/program"
)

// A candidate does the same work as the others of its table.
type candidate struct {
	name    string
	program string // whose size counts
	run     func() (program.Usage, error)
	runs    []program.Usage
}

func main() {
	size := flag.Int("mib", 1024, "how much is fetched")
	files := flag.Int("files", 100_000, "how many files change their owner")
	runs := flag.Int("runs", 5, "how often each is measured")
	flag.Parse()
	if err := run(os.Stdout, *size, *files, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, size, files, runs int) error {
	dir, err := os.MkdirTemp("", "bench-volume-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dM,nr_inodes=%d", 3*size+100, 2*files+1000)); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	fetched, err := downloads(dir, size)
	if err != nil {
		return err
	}
	if err := measure(out, fmt.Sprintf("%d MiB over loopback into memory", size), fetched, runs); err != nil {
		return err
	}
	owned, err := owners(dir, files)
	if err != nil {
		return err
	}
	return measure(out, fmt.Sprintf("owner and mode of %d files", files), owned, runs)
}

// measure runs the candidates in turn, so that a busy moment is nobody's alone.
func measure(out io.Writer, title string, candidates []candidate, runs int) error {
	for range runs {
		for i := range candidates {
			c := &candidates[i]
			u, err := c.run()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.runs = append(c.runs, u)
		}
	}
	fmt.Fprintf(out, "%s, medians of %d runs\n\n| | wall ms | CPU ms | RSS MB | binary MB |\n| --- | --- | --- | --- | --- |\n", title, runs)
	for _, c := range candidates {
		cells, err := program.Columns(c.runs, c.program)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "| %s | %s |\n", c.name, cells)
	}
	fmt.Fprintln(out)
	return nil
}

// downloads are fetch and curl, with and without a checksum.
func downloads(dir string, size int) ([]candidate, error) {
	fetch, err := program.Build(dir, "fetch")
	if err != nil {
		return nil, err
	}
	url, sum, err := serve(size)
	if err != nil {
		return nil, err
	}
	output := filepath.Join(dir, "output")
	command := func(name string, args ...string) func() (program.Usage, error) {
		return func() (program.Usage, error) {
			_ = os.Remove(output)
			return program.Run(exec.Command(name, args...))
		}
	}
	all := []candidate{
		{name: "fetch", program: fetch, run: command(fetch, "--url", url, "--output", output)},
		{name: "fetch --sha256", program: fetch, run: command(fetch, "--url", url, "--output", output, "--sha256", sum)},
		{name: "fetch --sha256, nothing to do", program: fetch, run: func() (program.Usage, error) {
			return program.Run(exec.Command(fetch, "--url", url, "--output", output, "--sha256", sum))
		}},
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: without curl:", err)
		return all, nil
	}
	check := func() (u program.Usage, err error) {
		if u, err = command(curl, "-sSo", output, url)(); err != nil {
			return u, err
		}
		v, err := program.Run(exec.Command("sha256sum", output))
		u.Add(v)
		return u, err
	}
	return append(all,
		candidate{name: "curl", program: curl, run: command(curl, "-sSo", output, url)},
		candidate{name: "curl, then sha256sum", program: curl, run: check}), nil
}

// serve gives out size MiB to everyone who connects, as fast as they are taken.
func serve(size int) (url, sum string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	block := make([]byte, 1<<20)
	hash := sha256.New()
	for i := range size {
		block[0] = byte(i)
		hash.Write(block)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c, size)
		}
	}()
	return "http://" + l.Addr().String() + "/m.bin", hex.EncodeToString(hash.Sum(nil)), nil
}

func answer(c net.Conn, size int) {
	defer c.Close()
	_, _ = c.Read(make([]byte, 4096))
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", size<<20)
	block := make([]byte, 1<<20)
	for i := range size {
		block[0] = byte(i)
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

// owners are init-storage, and chown with chmod.
func owners(dir string, files int) ([]candidate, error) {
	storage, err := program.Build(dir, "init-storage")
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, "tree")
	for i := range files {
		if i%100 == 0 {
			if err := os.MkdirAll(fmt.Sprintf("%s/%d/%d", tree, i/10_000, i/100), 0o755); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(fmt.Sprintf("%s/%d/%d/%d", tree, i/10_000, i/100, i), nil, 0o600); err != nil {
			return nil, err
		}
	}
	chown, err := exec.LookPath("chown")
	if err != nil {
		return nil, err
	}
	// Each turn gives the tree away to somebody else.
	id := 1000
	ours := func() (program.Usage, error) {
		id++
		return program.Run(exec.Command(storage, "--dir", fmt.Sprintf("%s:%04o:%d:%d", tree, 0o750|id%2, id, id), "--recursive"))
	}
	again := func() (program.Usage, error) {
		return program.Run(exec.Command(storage, "--dir", fmt.Sprintf("%s:%04o:%d:%d", tree, 0o750|id%2, id, id), "--recursive"))
	}
	theirs := func() (u program.Usage, err error) {
		id++
		if u, err = program.Run(exec.Command(chown, "-R", fmt.Sprintf("%d:%d", id, id), tree)); err != nil {
			return u, err
		}
		v, err := program.Run(exec.Command("chmod", "-R", fmt.Sprintf("u=rwX,g=rX,o=%s", []string{"", "x"}[id%2]), tree))
		u.Add(v)
		return u, err
	}
	return []candidate{
		{name: "init-storage --recursive", program: storage, run: ours},
		{name: "init-storage --recursive, nothing to do", program: storage, run: again},
		{name: "chown -R, then chmod -R", program: chown, run: theirs},
	}, nil
}
