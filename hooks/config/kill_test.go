// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var kills = flag.Int("kills", 100, "how often a writer is killed, with --atomic-dir and without")

// parts is how many files the output has.
const parts = 5

// wholeFiles are templates whose output tells whether it is whole, and of
// which generation: every line has it, and the last one says so.
func wholeFiles(t *testing.T) *fixture {
	f := setUp(t, nil)
	// In memory, where there is such a place: a kill is no power failure, and
	// a disk that is asked to write 10,000 times makes the test slow.
	if dir, err := os.MkdirTemp("/dev/shm", "config-test-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		f.OutputDir = filepath.Join(dir, "out")
	}
	for i := range parts {
		f.templates(map[string]string{fmt.Sprintf("conf.d/%d.conf", i): strings.Repeat("line ${GENERATION}\n", 8<<i) + "end ${GENERATION}\n"})
	}
	return f
}

// generationOf reads one of them.
func generationOf(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	lines := strings.Split(string(data), "\n")
	generation, ok := strings.CutPrefix(lines[0], "line ")
	if !ok || len(lines) < 3 || lines[len(lines)-1] != "" || lines[len(lines)-2] != "end "+generation {
		return "", fmt.Errorf("%s is not whole", name)
	}
	for _, line := range lines[:len(lines)-2] {
		if line != "line "+generation {
			return "", fmt.Errorf("%s has lines of %s and %q", name, generation, line)
		}
	}
	return generation, nil
}

// generations reads all files of a directory; missing ones are left out.
func generations(dir string) (found []string, err error) {
	for i := range parts {
		generation, err := generationOf(filepath.Join(dir, fmt.Sprintf("%d.conf", i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, generation)
	}
	return found, nil
}

// TestKilled kills a writer at any moment: every file is whole, and with
// --atomic-dir all are of one generation.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"files", "atomic"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := wholeFiles(t)
			mixed, seen := 0, map[string]bool{}
			f.Environ, f.AtomicDir = []string{"GENERATION=first"}, how == "atomic"
			start := time.Now()
			f.commit()
			once := time.Since(start)
			for range *kills {
				writer := role(t, 0, "render", f.TemplateDir, f.OutputDir, how)
				var stderr strings.Builder
				writer.Stderr = &stderr
				stdout, err := writer.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, writer.Start())
				_, err = bufio.NewReader(stdout).ReadString('\n')
				require.NoError(t, err)
				time.Sleep(time.Duration(rand.Int64N(int64(4 * once))))
				require.NoError(t, writer.Process.Kill())
				_ = writer.Wait()
				require.Empty(t, stderr.String())
				found, err := generations(filepath.Join(f.OutputDir, "conf.d"))
				require.NoError(t, err)
				for _, generation := range found {
					seen[generation] = true
					if generation != found[0] {
						mixed++
						break
					}
				}
				if how == "atomic" {
					require.Contains(t, []int{0, parts}, len(found), "a file is missing")
					require.Zero(t, mixed, "of two generations: %q", found)
				}
			}
			t.Logf("%d kills, %d generations seen, %d times old and new files beside each other", *kills, len(seen), mixed)
			assert.Greater(t, len(seen), *kills/10, "the writers were killed before they had written")

			// Nothing is left for ever.
			f.Environ = []string{"GENERATION=last"}
			f.commit()
			var names []string
			require.NoError(t, filepath.WalkDir(f.OutputDir, func(name string, d fs.DirEntry, err error) error {
				names = append(names, name)
				return err
			}))
			most := 1 + 1 + parts // the directory, conf.d, its files
			if how == "atomic" {
				most += 3 // ..data, the data, and conf.d in there
			}
			assert.Len(t, names, most, "%q", names)
		})
	}
}

// TestReader polls while a writer renders 1,000 times: it never sees a part of a file, and
// with --atomic-dir, through ..data opened once, never files of two kinds.
func TestReader(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"files", "atomic"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := wholeFiles(t)
			writer := role(t, 0, "render", f.TemplateDir, f.OutputDir, how)
			require.NoError(t, writer.Start())
			t.Cleanup(func() { _ = writer.Process.Kill(); _ = writer.Wait() })
			last := 0
			deadline := time.Now().Add(5 * time.Minute)
			for last < 1000 && time.Now().Before(deadline) {
				if how == "files" {
					found, err := generations(filepath.Join(f.OutputDir, "conf.d"))
					require.NoError(t, err)
					for _, generation := range found {
						last = max(last, count(generation))
					}
					continue
				}
				root, err := os.OpenRoot(filepath.Join(f.OutputDir, dataLink))
				if err != nil {
					continue // not there yet
				}
				var found []string
				for i := range parts {
					file, err := root.Open(fmt.Sprintf("conf.d/%d.conf", i))
					if err != nil {
						break // replaced meanwhile, and removed: look again
					}
					line, err := bufio.NewReader(file).ReadString('\n')
					require.NoError(t, err)
					file.Close()
					found = append(found, line)
					assert.Equal(t, found[0], line)
				}
				root.Close()
				if len(found) == parts {
					last = count(found[0])
				}
			}
			assert.GreaterOrEqual(t, last, 1000, "renders in time")
		})
	}
}

// count is the number of the render in a generation of renderLoop.
func count(generation string) int {
	_, number, _ := strings.Cut(strings.TrimSpace(generation), "-")
	n, _ := strconv.Atoi(number)
	return n
}
