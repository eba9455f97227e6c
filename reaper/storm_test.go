// SPDX-License-Identifier: Apache-2.0

package reaper_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

// Children with known codes, each seventh killed by TERM, in a storm of
// orphans: no status goes astray, and nothing is left at the end.
func TestStorm(t *testing.T) {
	places := []struct{ name, where string }{
		{"subreaper", "sub"},
		{"PID 1", "pid1"},
		{"PID 1, few pids", "pid1 pid_max=400"},
		{"subreaper, few pids", "sub pid_max=400"},
		{"PID 1, waitid refused", "pid1 filter=waitid"},
	}
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			if rerun(t, p.where) {
				storm(t)
			}
		})
	}
}

func storm(t *testing.T) {
	_, first := parsePlace(os.Getenv(envPlace))["pid1"]
	require.Equal(t, first, os.Getpid() == 1)
	makeThreads(20)
	programs := writePrograms(t)
	stop := startChains(t, programs, 3)

	duration := 3 * time.Second
	if testing.Short() {
		duration = time.Second
	}
	begun := time.Now()
	var workers sync.WaitGroup
	var children atomic.Int64
	for range 4 {
		workers.Go(func() {
			for children.Load() < 500 || time.Since(begun) < duration {
				i := int(children.Add(1))
				c, want := programs.exit(i%256), i%256
				if i%7 == 0 {
					c, want = programs.pause(), 143
				}
				child := startAnyway(t, c)
				if i%7 == 0 {
					assert.NoError(t, child.Signal(unix.SIGTERM))
				}
				assert.Equal(t, want, exitOf(t, child).Code(), "child %d, pid %d", i, child.PID())
			}
		})
	}
	most := mostZombies(&workers)
	rate := float64(shared.Orphans()) / time.Since(begun).Seconds()
	stop()
	requireEmpty(t)
	left, err := reaper.Descendants()
	require.NoError(t, err)
	assert.Empty(t, left)
	t.Logf("%d children beside %.0f orphans/s, at most %d zombies seen", children.Load(), rate, most)
	assert.Greater(t, rate, 200.0, "that is no storm") // thousands, but forks fail where pids are few
}

// makeThreads has the runtime make threads, which it keeps: it aborts when it
// needs one and no pid is free.
func makeThreads(n int) {
	var parked sync.WaitGroup
	release := make(chan struct{})
	parked.Add(n)
	var done sync.WaitGroup
	for range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			parked.Done()
			<-release
		})
	}
	parked.Wait()
	close(release)
	done.Wait()
}

// startChains starts chains of processes that fork the next and end, until stop
// is called. They exit with the low byte of a pid, so that a status that goes
// to the wrong child is seen.
func startChains(t testing.TB, p programs, n int) (stop func()) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	for range n {
		c := p.chain()
		c.Files[0] = r.Fd()
		startAnyway(t, c)
	}
	require.NoError(t, r.Close())
	return func() { w.Close() }
}

// mostZombies watches while the workers work.
func mostZombies(workers *sync.WaitGroup) (most int) {
	done := make(chan struct{})
	go func() { workers.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return most
		case <-time.After(100 * time.Millisecond):
		}
		zombies := 0
		procs, _ := procfs.AllProcs()
		for _, p := range procs {
			if stat, err := p.Stat(); err == nil && stat.State == "Z" && stat.PPID == os.Getpid() {
				zombies++
			}
		}
		most = max(most, zombies)
	}
}

// startAnyway starts a command even where at the moment no pid is free.
func startAnyway(t testing.TB, c reaper.Command) *reaper.Child {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		child, err := shared.Start(c)
		if err == nil {
			return child
		}
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(deadline) {
			t.Errorf("start %s: %v", c.Path, err)
			runtime.Goexit()
		}
	}
}

// programs are executables of a few instructions: they start in a tenth of a
// millisecond and have one thread. A Go program has several, and aborts where
// no pid is free for the next.
type programs struct {
	dir  string
	null uintptr
}

func (p programs) exit(code int) reaper.Command { return p.command(strconv.Itoa(code)) }
func (p programs) pause() reaper.Command        { return p.command("pause") }
func (p programs) chain() reaper.Command        { return p.command("chain") }

func (p programs) command(name string) reaper.Command {
	return reaper.Command{
		Path: filepath.Join(p.dir, name), Args: []string{"tiny-" + name},
		Files: []uintptr{p.null, p.null, p.null},
	}
}

// writePrograms writes them. Nothing may fork meanwhile, or it would hold one
// open for writing, and execve would answer ETXTBSY.
func writePrograms(t testing.TB) programs {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the tiny programs are written for amd64")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { null.Close() })
	p := programs{dir: t.TempDir(), null: null.Fd()}
	write := func(name string, code []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, name), elf(code), 0o755))
	}
	for code := range 256 {
		write(strconv.Itoa(code), []byte{
			0xbf, byte(code), 0, 0, 0, // mov edi, code
			0xb8, 231, 0, 0, 0, 0x0f, 0x05, // exit_group
		})
	}
	write("pause", []byte{
		0xb8, 34, 0, 0, 0, 0x0f, 0x05, // pause
		0xeb, 0xf7, // jmp to the start
	})
	write("chain", []byte{
		0x6a, 0x00, // push a pollfd: descriptor 0, no events but HUP
		0x48, 0x89, 0xe7, // mov rdi, rsp
		0xbe, 1, 0, 0, 0, // mov esi, 1
		0x31, 0xd2, // xor edx, edx
		0xb8, 7, 0, 0, 0, 0x0f, 0x05, // poll
		0x59,       // pop rcx
		0x85, 0xc0, // test eax, eax
		0x75, 0x0d, // jnz to the end: nobody holds the pipe
		0xb8, 57, 0, 0, 0, 0x0f, 0x05, // fork
		0x85, 0xc0, // test eax, eax
		0x74, 0xdd, // jz to the start: the child goes on
		0x78, 0xdb, // js to the start: no pid is free
		0x89, 0xc7, // mov edi, eax
		0xb8, 231, 0, 0, 0, 0x0f, 0x05, // exit_group
	})
	return p
}

// elf makes an executable of machine code that needs no data.
func elf(code []byte) []byte {
	const (
		base       = 0x400000
		headerSize = 64 + 56
	)
	le := binary.LittleEndian
	b := append([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, make([]byte, 9)...)
	b = le.AppendUint16(b, 2)  // executable
	b = le.AppendUint16(b, 62) // x86-64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headerSize) // entry
	b = le.AppendUint64(b, 64)              // program headers
	b = le.AppendUint64(b, 0)
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // read, execute
	size := uint64(headerSize + len(code))
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
