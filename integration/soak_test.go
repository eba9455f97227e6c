// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

var (
	soakFlag = flag.Duration("soak", 30*time.Second, "how long TestSoak goes on before it sends TERM")
	seedFlag = flag.Uint64("seed", 0, "where the random choices of TestSoak come from; 0: another one each time")
)

// The drain takes longer than anything that is done in it, and the grace period
// than the whole shutdown.
const (
	soakDrain = time.Minute
	soakGrace = 2 * time.Minute
)

// TestSoak lets everything happen at once that a long life in a cluster
// brings: processes of all kinds come and go, signals arrive in any order,
// strangers enter as kubectl exec does, probes are asked all the while. What
// happens is drawn from a seed; what must hold is checked all the time, or
// counted and compared when it is quiet.
func TestSoak(t *testing.T) {
	// Not beside the others: what they wait for would come too late.
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1_000_000_000) + 1
	}
	t.Run("as PID 1", func(t *testing.T) {
		t.Parallel()
		newSoak(t, seed, true).run()
	})
	t.Run("as a subreaper", func(t *testing.T) {
		t.Parallel()
		newSoak(t, seed, false).run()
	})
}

// A soak is one container, and what is known of it.
type soak struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	pid1  bool // else a child of PID 1, which reaps what is not ours
	begin time.Time

	in    *Instance
	init  *os.Process // the program under test; a handle that knows when it was reaped
	host  int         // its pid on the host
	stdin *os.File    // the command's
	read  chan struct{}

	hookCodes map[string]int // by the step's name
	daemons   []string       // files of those that must get one TERM, and the time to clean up
	holdOut   string         // one that does not end
	witnesses []string       // files of those that nobody may signal
	strangers int            // number of the next one

	notForwarded []syscall.Signal // that are sent nevertheless

	stage    atomic.Int32 // where the probes have to be
	answered atomic.Int64 // probes
	oldest   atomic.Int64 // of the zombies, in ms
	stop     chan struct{}
	watching sync.WaitGroup

	mu       sync.Mutex
	ready    bool
	sent     map[int]int // by signal
	skipped  map[int]int // those of sent that shall not arrive
	got      map[int]int
	pending  map[string]string // actions of the command and of strangers
	actions  int
	orphans  int      // that have been reaped, or must be when it is quiet
	later    int      // that are left alive and must be reaped at the end
	left     []string // what the PID 1 above a subreaper has seen at the end
	history  []string
	failures []string
}

// The stages.
const (
	soakRunning  = iota
	soakTold     // a stop signal was sent
	soakStopping // and has made an end to readiness
	soakEnding   // and the command has been told to end
)

func newSoak(t *testing.T, seed uint64, pid1 bool) *soak {
	t.Helper()
	t.Logf("seed %d: repeat it with -run '%s' -seed %d", seed, t.Name(), seed)
	s := &soak{
		t: t, seed: seed, pid1: pid1, begin: time.Now(),
		notForwarded: soakOwn, hookCodes: map[string]int{}, sent: map[int]int{}, skipped: map[int]int{}, got: map[int]int{}, pending: map[string]string{},
		stop: make(chan struct{}), read: make(chan struct{}),
	}
	s.rng = s.random(1)
	const storm = 2000
	files := []File{
		Hook("00-storm", fmt.Sprintf("leave storm %d 2s", storm)),
		StopHook("10-look", "ps /tmp/left"), StopHook("20-code", "exit 7"),
	}
	s.orphans = storm + 1
	for i := range 30 {
		name, code := fmt.Sprintf("10-%02d", i), s.rng.IntN(256)
		words := []string{"exit", strconv.Itoa(code)}
		if s.rng.IntN(4) == 0 {
			sig := []int{1, 9, 15, 10, 12, 40}[s.rng.IntN(6)]
			words, code = []string{"die", strconv.Itoa(sig)}, 128+sig
		}
		files = append(files, Step(name+".yaml", runs(words...), "onFailure: continue"))
		s.hookCodes[name] = code
	}
	o := Options{
		Args: do("soak"), Files: files,
		Env: env(
			fmt.Sprintf("CLEANIMG_INIT_GRACE_PERIOD=%v", soakGrace), fmt.Sprintf("CLEANIMG_INIT_DRAIN_DELAY=%v", soakDrain), "CLEANIMG_INIT_KILL_GRACE=10s",
			fmt.Sprintf("CLEANIMG_INIT_HOOKS_PARALLEL=%d", 1+s.rng.IntN(4)), "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json",
		),
	}
	if !pid1 {
		o.Program, o.Args = "/bin/testprog", append([]string{"adopt", "/bin/cleanimg-init"}, o.Args...)
	}
	stdin, stdinHere, err := os.Pipe()
	require.NoError(t, err)
	stdoutHere, stdout, err := os.Pipe()
	require.NoError(t, err)
	o.Stdin, o.Stdout, s.stdin = stdin, stdout, stdinHere
	go s.listen(stdoutHere)
	t.Cleanup(func() { <-s.read }) // after Run's cleanup
	s.in = Run(t, o)
	stdin.Close()
	stdout.Close()
	t.Cleanup(s.tell)
	t.Cleanup(func() { close(s.stop); s.watching.Wait(); stdinHere.Close() })
	return s
}

// random is one of the sequences of the seed.
func (s *soak) random(n uint64) *rand.Rand {
	if s.pid1 {
		n += 100
	}
	return rand.New(rand.NewPCG(s.seed, n))
}

// run is the whole of it.
func (s *soak) run() {
	if !s.await("the command to be ready", func() bool { return s.ready }) {
		return
	}
	s.findInit()
	s.awaitLastSignal()
	s.watching.Go(s.probe)
	s.watching.Go(s.watchZombies)

	for end := time.Now().Add(*soakFlag); time.Now().Before(end) && !s.failed(); {
		for range 250 {
			s.step()
			if s.failed() || time.Now().After(end) {
				break
			}
		}
		s.quiet()
		// By now it must have asked for them.
		s.notForwarded = slices.Concat(soakOwn, soakFaults)
	}
	if s.failed() {
		return
	}
	code, began := s.shutdown()
	if !s.failed() {
		s.end(code, began)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	signals := 0
	for _, n := range s.sent {
		signals += n
	}
	s.t.Logf("%d actions, %d signals, %d orphans, %d probes, oldest zombie %d ms", s.actions, signals, s.orphans, s.answered.Load(), s.oldest.Load())
}

// findInit looks for the program under test, if it is not PID 1.
func (s *soak) findInit() {
	s.init, s.host = s.in.process, s.in.PID
	if s.pid1 {
		return
	}
	find := func() int {
		for _, p := range s.in.Processes() {
			if p.Name == "cleanimg-init" && p.PPID == s.in.PID {
				return p.Host
			}
		}
		return -1
	}
	s.host = find()
	var err error
	s.init, err = os.FindProcess(s.host)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = s.init.Release() })
	require.Equal(s.t, s.host, find(), "the handle is the program's, if the pid is still")
}

// awaitLastSignal waits until the program asks for all signals. The one with
// the highest number is the last, and is not among those that are counted.
func (s *soak) awaitLastSignal() {
	for again := 0; again < 400 && s.count(64) == 0; again++ {
		s.send(64)
		for wait := 0; wait < 50 && s.count(64) == 0; wait++ {
			time.Sleep(time.Millisecond)
		}
	}
	if s.count(64) == 0 {
		s.fail("signal 64 does not arrive")
	}
}

// step does one thing.
func (s *soak) step() {
	r := s.rng
	num := func(least, most int) string { return strconv.Itoa(least + r.IntN(most-least+1)) }
	switch n := r.IntN(100); {
	case n < 12:
		s.do("children", num(1, 12), num(0, 50))
	case n < 22:
		s.do("orphans", num(1, 40), num(0, 200))
	case n < 24:
		s.do("orphans", num(150, 250), num(0, 20))
	case n < 30:
		s.do("session", num(1, 10), num(0, 300))
	case n < 33:
		s.do("bequeath", num(1, 10), num(100, 1500))
	case n < 37:
		s.do("subreaper", num(1, 20), num(0, 100), num(0, 500))
	case n < 43:
		s.do("stops", num(1, 5), num(0, 255))
	case n < 46:
		s.do("exec", num(0, 255))
	case n < 48:
		s.daemon()
	case n < 56:
		s.stranger()
	case n < 80:
		s.oneSignal()
	case n < 86:
		s.differentSignals()
	case n < 91:
		s.sameSignals()
	case n < 94:
		s.send(s.notForwarded[r.IntN(len(s.notForwarded))])
	default:
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond) // other rhythms
	}
	s.await("fewer things to be under way", func() bool { return len(s.pending) < 16 })
}

// do lets the command do something.
func (s *soak) do(words ...string) {
	id := s.enter("command", strings.Join(words, " "))
	if _, err := fmt.Fprintln(s.stdin, id, strings.Join(words, " ")); err != nil {
		s.fail("the command cannot be told: %v", err)
	}
}

// enter notes what is under way.
func (s *soak) enter(who, what string) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.actions++
	id = strconv.Itoa(s.actions)
	s.pending[id] = who + " " + what
	s.note("%s: %s %s", who, id, what)
	return id
}

// over notes that it is over, and how many orphans there are by it.
func (s *soak) over(id string, orphans int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("over: %s, %d orphans", id, orphans)
	if strings.HasPrefix(s.pending[id], "command daemon") || strings.HasPrefix(s.pending[id], "command stopped") {
		s.later += orphans
	} else {
		s.orphans += orphans
	}
	delete(s.pending, id)
}

// daemon starts one that lives to the end. A stopped one has to be continued
// to get its TERM.
func (s *soak) daemon() {
	if len(s.daemons) >= 8 {
		return
	}
	file := fmt.Sprintf("/tmp/daemon-%d", len(s.daemons))
	s.daemons = append(s.daemons, file)
	s.do(append([]string{[]string{"daemon", "stopped"}[s.rng.IntN(2)], file}, trapped(file, s.rng.IntN(300))...)...)
}

// trapped is a daemon that writes down what it gets, and needs some
// milliseconds to clean up.
func trapped(file string, cleanup int) []string {
	return []string{"trap", "-quiet", "-ready", file + ".ready", "-file", file + ".got", "-on", "TERM=0", "-delay", fmt.Sprintf("%dms", cleanup), "-write", file + ".clean"}
}

// stranger enters the namespaces from outside.
func (s *soak) stranger() {
	file := fmt.Sprintf("/tmp/stranger-%d", s.strangers)
	s.strangers++
	code, orphans, mine := 0, 0, false
	var words []string
	switch n := s.rng.IntN(10); {
	case n < 3:
		code = s.rng.IntN(256)
		words = []string{"exit", strconv.Itoa(code)}
	case n < 5:
		orphans = 1 + s.rng.IntN(30)
		words = []string{"storm", strconv.Itoa(orphans)}
	case n < 7:
		orphans = 1 + s.rng.IntN(30)
		words = []string{"leave", "storm", strconv.Itoa(orphans), "200ms"}
		orphans++
	case n < 8:
		orphans = 1
		words = []string{"leave", "sleep", strconv.Itoa(s.rng.IntN(400)) + "ms"}
	default:
		if len(s.witnesses) >= 4 || len(s.daemons) >= 8 {
			return
		}
		if n == 8 {
			s.witness(file)
			return
		}
		// What it leaves is PID 1's from then on: ours, or not.
		words = append([]string{"leave"}, trapped(file, s.rng.IntN(300))...)
		mine = s.pid1
		if mine {
			s.daemons = append(s.daemons, file)
		} else {
			s.witnesses = append(s.witnesses, file)
		}
	}
	id := s.enter("stranger", strings.Join(words, " "))
	cmd := s.in.execCommand(append([]string{"/bin/testprog"}, words...)...)
	require.NoError(s.t, cmd.Start())
	s.watching.Go(func() {
		err := cmd.Wait()
		var exited *exec.ExitError
		if err != nil && !errors.As(err, &exited) || cmd.ProcessState.ExitCode() != code {
			s.fail("a stranger's status is %v (%v) instead of %d: %v", cmd.ProcessState, err, code, words)
		}
		if mine {
			s.mu.Lock()
			s.later++
			s.mu.Unlock()
		}
		if !s.pid1 {
			orphans = 0 // not ours
		}
		s.over(id, orphans)
	})
	if strings.Contains(strings.Join(words, " "), file) {
		s.awaitReady(file)
	}
}

// witness enters and stays, and has handlers for all signals.
func (s *soak) witness(file string) {
	s.mu.Lock()
	s.note("stranger: witness %s", file)
	s.mu.Unlock()
	s.witnesses = append(s.witnesses, file)
	s.in.ExecStart("/bin/testprog", "trap", "-quiet", "-ready", file+".ready", "-file", file+".got")
	s.awaitReady(file)
}

func (s *soak) awaitReady(file string) {
	s.await(file, func() bool { return s.in.ran(file + ".ready") })
}

// The signals that are counted one by one. The last five real-time signals are
// sent in bursts, in which those that arrive together may become one on the
// way through a Go program: what it has received must then be what arrives.
var (
	soakOnce  = soakSignals()
	soakBurst = []syscall.Signal{60, 61, 62, 63, 64}

	// Not passed on: the Go runtime's own and the reaper's, and those of a
	// fault. They must not hurt.
	soakOwn    = []syscall.Signal{unix.SIGURG, unix.SIGPIPE, unix.SIGCHLD}
	soakFaults = []syscall.Signal{unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT}
)

func soakSignals() []syscall.Signal {
	all := []syscall.Signal{
		unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
	}
	for sig := syscall.Signal(35); sig < 60; sig++ {
		all = append(all, sig)
	}
	return all
}

// send sends a signal to the program under test.
func (s *soak) send(sig syscall.Signal) {
	s.mu.Lock()
	s.sent[int(sig)]++
	s.note("send: %d", sig)
	s.mu.Unlock()
	if err := s.init.Signal(sig); err != nil {
		s.fail("signal %d cannot be sent: %v", sig, err)
	}
}

// oneSignal arrives before anything else is sent.
func (s *soak) oneSignal() {
	sig := soakOnce[s.rng.IntN(len(soakOnce))]
	s.send(sig)
	s.awaitArrived(sig)
}

// differentSignals are on their way together.
func (s *soak) differentSignals() {
	// CONT discards stop signals that are pending, and they it.
	without := []syscall.Signal{unix.SIGCONT}
	if s.rng.IntN(2) == 0 {
		without = []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	}
	some := slices.DeleteFunc(slices.Clone(soakOnce), func(sig syscall.Signal) bool { return slices.Contains(without, sig) })
	s.rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	some = some[:2+s.rng.IntN(len(some)-2)]
	for _, sig := range some {
		s.send(sig)
	}
	s.awaitArrived(some...)
}

// sameSignals may arrive as one.
func (s *soak) sameSignals() {
	sig := soakBurst[s.rng.IntN(len(soakBurst))]
	before := s.count(sig)
	for range 2 + s.rng.IntN(40) {
		s.send(sig)
	}
	s.await(fmt.Sprintf("one signal %d of many", sig), func() bool { return s.got[int(sig)] > before })
}

func (s *soak) awaitArrived(signals ...syscall.Signal) {
	for _, sig := range signals {
		s.await(fmt.Sprintf("signal %d", sig), func() bool { return s.got[int(sig)] == s.sent[int(sig)]-s.skipped[int(sig)] })
	}
}

func (s *soak) count(sig syscall.Signal) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[int(sig)]
}

// quiet waits until everything that was begun is over, and compares what the
// program has counted with what was done.
func (s *soak) quiet() {
	if s.failed() || !s.await("all to be over", func() bool { return len(s.pending) == 0 }) {
		return
	}
	var last string
	agree := func() bool {
		status, body, err := s.in.Get("/status")
		if err != nil || status != 200 {
			last = fmt.Sprintf("/status answers %d, %v", status, err)
			return false
		}
		var r runReport
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			last = err.Error()
			return false
		}
		last = s.differs(r, 0)
		return last == ""
	}
	for deadline := time.Now().Add(patience); !agree(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.fail("when it was quiet: %s", last)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("quiet: %d orphans", s.orphans)
}

// differs compares a report with what was done.
func (s *soak) differs(r runReport, late int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if want := s.orphans + late; r.Reaped != want {
		return fmt.Sprintf("%d orphans were reaped, there were %d", r.Reaped, want)
	}
	for sig := 1; sig <= 64; sig++ {
		received, sent, got := r.Signals[signalName(sig)], s.sent[sig], s.got[sig]
		switch {
		case slices.Contains(soakBurst, syscall.Signal(sig)):
			if received != got || received > sent {
				return fmt.Sprintf("signal %d was sent %d times, received %d times and arrived %d times", sig, sent, received, got)
			}
		case neverForwarded(sig):
			if received > sent || got != 0 {
				return fmt.Sprintf("signal %d was sent %d times, received %d times and arrived %d times", sig, sent, received, got)
			}
		case received != sent || got != sent-s.skipped[sig]:
			return fmt.Sprintf("signal %d was sent %d times, received %d times and arrived %d times", sig, sent, received, got)
		}
	}
	return ""
}

func neverForwarded(sig int) bool {
	return slices.Contains(soakOwn, syscall.Signal(sig)) || slices.Contains(soakFaults, syscall.Signal(sig))
}

// signalName is a signal's in the report.
func signalName(sig int) string {
	if sig > 34 {
		return fmt.Sprintf("RTMIN+%d", sig-34)
	}
	return strings.TrimPrefix(unix.SignalName(syscall.Signal(sig)), "SIG")
}

// shutdown sends TERM, goes on while the command takes its time, and lets it
// end. It returns the exit code that must follow.
func (s *soak) shutdown() (code int, began time.Time) {
	s.rng = s.random(2) // how much came before depends on the machine
	if s.rng.IntN(3) == 0 {
		s.holdOut = "/tmp/daemon-that-holds-out"
		s.do("daemon", s.holdOut, "trap", "-quiet", "-ready", s.holdOut+".ready", "-file", s.holdOut+".got")
	}
	for len(s.witnesses) == 0 {
		s.witness("/tmp/stranger-at-last")
	}
	for len(s.daemons) < 2 {
		s.daemon()
	}
	s.quiet()
	began = time.Now()
	s.stage.Store(soakTold)
	s.mu.Lock()
	s.skipped[int(unix.SIGTERM)] = 1 // the next one takes its place
	s.mu.Unlock()
	s.send(unix.SIGTERM)
	s.in.WaitStatus("/health/ready", 503)
	s.stage.Store(soakStopping)
	for range 10 {
		s.stepOfTheEnd()
	}
	for range 10 { // the first ends the drain
		sig := []syscall.Signal{unix.SIGTERM, unix.SIGINT}[s.rng.IntN(2)]
		if s.count(unix.SIGTERM) == 0 {
			sig = unix.SIGTERM
		}
		s.send(sig)
		s.awaitArrived(sig)
		s.stepOfTheEnd()
	}
	s.quiet()
	if s.failed() {
		return 0, began
	}
	if !s.pid1 {
		s.in.eventually("what strangers left to PID 1 to end", func() bool {
			return !slices.ContainsFunc(s.in.Processes(), func(p Process) bool {
				return p.State == "Z" || len(p.Args) > 1 && slices.Contains([]string{"leave", "storm", "sleep"}, p.Args[1])
			})
		})
	}
	code = s.rng.IntN(126)
	last := strconv.Itoa(code)
	if s.rng.IntN(2) == 0 {
		last = []string{"TERM", "KILL", "USR1"}[s.rng.IntN(3)]
		code = 128 + int(unix.SignalNum("SIG"+last))
	}
	s.stage.Store(soakEnding)
	s.mu.Lock()
	s.note("end: %s", last)
	s.mu.Unlock()
	if _, err := fmt.Fprintln(s.stdin, "0 end", last); err != nil {
		s.fail("the command cannot be told to end: %v", err)
	}
	return code, began
}

// stepOfTheEnd is what goes on while the command takes its time.
func (s *soak) stepOfTheEnd() {
	switch s.rng.IntN(6) {
	case 0:
		s.do("orphans", "20", "50")
	case 1:
		s.do("children", "10", "20")
	case 2:
		s.stranger()
	default:
		s.oneSignal()
	}
}

// end checks what there is when it is over.
func (s *soak) end(code int, began time.Time) {
	t := s.t
	got := s.in.WaitFor(2 * patience)
	took := time.Since(began)
	<-s.read
	assert.Equal(t, code, got, "the command's code")
	assert.Less(t, took, soakGrace, "the end is within the grace period")

	r := report(t, s.in)
	s.mu.Lock()
	later := s.later
	s.mu.Unlock()
	assert.Empty(t, s.differs(r, later))
	if assert.NotNil(t, r.ExitCode) {
		assert.Equal(t, code, *r.ExitCode)
	}
	codes := map[string]int{}
	for _, step := range r.Steps {
		if step.Code != nil {
			codes[step.Name] = *step.Code
		}
	}
	want := map[string]int{"00-storm": 0, "10-look": 0, "20-code": 7}
	for name, code := range s.hookCodes {
		want[name] = code
	}
	assert.Equal(t, want, codes, "the statuses of the hooks")

	for _, file := range s.daemons {
		lines := strings.Fields(strings.ReplaceAll(s.in.File(file+".got"), "got ", ""))
		assert.Equal(t, []string{"TERM"}, slices.DeleteFunc(lines, func(name string) bool { return name == "CONT" }), "%s got", file)
		assert.NotEmpty(t, s.in.File(file+".clean"), "%s was killed before it had cleaned up", file)
	}
	if s.holdOut != "" {
		assert.Contains(t, s.in.File(s.holdOut+".got"), "got TERM")
		assert.Contains(t, s.in.Stderr.String(), "still running")
	}
	for _, file := range s.witnesses {
		assert.Empty(t, s.in.File(file+".got"), "%s, which is none of our processes", file)
	}
	for _, where := range [][]string{strings.Split(strings.TrimSpace(s.in.File("/tmp/left")), "\n"), s.left} {
		witnesses := 0
		for _, line := range where {
			switch {
			case strings.Contains(line, "/tmp/stranger-"):
				witnesses++
			case line != "" && !strings.Contains(line, " cleanimg-init "):
				assert.Fail(t, "something is left", "%s", line)
			}
		}
		if len(where) > 0 {
			assert.Equal(t, len(s.witnesses), witnesses, "strangers that still live: %q", where)
		}
	}
	for _, trouble := range []string{"panic", "goroutine ", "fatal error", "could not be ended", "not forwarded"} {
		assert.NotContains(t, s.in.Stderr.String(), trouble)
	}
}

// probe asks all the while.
func (s *soak) probe() {
	r := s.random(3)
	for {
		path := []string{"/health/live", "/health/startup", "/health/ready", "/livez", "/readyz", "/status"}[r.IntN(6)]
		before := s.stage.Load()
		status, _, err := s.in.Get(path)
		after := s.stage.Load()
		ready := strings.Contains(path, "ready")
		switch {
		case err != nil && after == soakEnding && !os.IsTimeout(err):
			// It may have left, but not before the others.
			for _, p := range s.in.Processes() {
				if args := strings.Join(p.Args, " "); p.State != "Z" && (strings.Contains(args, "/tmp/daemon") || strings.HasSuffix(args, " soak blocked")) {
					s.fail("%s is not answered (%v) while there is %v", path, err, p)
				}
			}
			return
		case err != nil:
			s.fail("%s is not answered: %v", path, err)
			return
		case ready && after == soakRunning && status != 200, ready && before >= soakStopping && status != 503, !ready && status != 200:
			s.fail("%s answers %d in stage %d", path, status, before)
			return
		}
		s.answered.Add(1)
		select {
		case <-s.stop:
			return
		case <-time.After(time.Duration(r.IntN(30)) * time.Millisecond):
		}
	}
}

// watchZombies looks for those that the program under test leaves lying. Older
// than a second is what is still there after a second in which it has answered
// probes: on a machine that has no time for it at all, nothing is reaped.
func (s *soak) watchZombies() {
	type sighting struct {
		at       time.Time
		answered int64
	}
	known := map[string]sighting{}
	for {
		now := map[string]sighting{}
		for _, p := range s.in.Processes() {
			if p.State != "Z" || p.PPID != s.host {
				continue
			}
			key := fmt.Sprintf("%d/%s", p.Host, startOf(p.Host))
			first, ok := known[key]
			if !ok {
				first = sighting{time.Now(), s.answered.Load()}
			}
			now[key] = first
			age := time.Since(first.at)
			s.oldest.Store(max(s.oldest.Load(), age.Milliseconds()))
			if age > time.Second && s.answered.Load() > first.answered+5 {
				s.fail("a zombie is %v old: %v", age, p)
				return
			}
		}
		known = now
		select {
		case <-s.stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// startOf is when a process was started: a pid may be another's a moment later.
func startOf(host int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", host))
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// listen reads what the command says.
func (s *soak) listen(stdout *os.File) {
	defer close(s.read)
	defer stdout.Close()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		words := strings.SplitN(lines.Text(), " ", 4)
		switch words[0] {
		case "ready":
			s.mu.Lock()
			s.ready = true
			s.mu.Unlock()
		case "got":
			s.arrived(words[1])
		case "done":
			if words[2] != "ok" {
				s.fail("action %s: %s", words[1], strings.Join(words[2:], " "))
				continue
			}
			orphans, _ := strconv.Atoi(words[3])
			s.over(words[1], orphans)
		case "left":
			s.left = append(s.left, lines.Text())
		default:
			s.fail("the command says %q", lines.Text())
		}
	}
}

func (s *soak) arrived(word string) {
	sig, _ := strconv.Atoi(word)
	s.mu.Lock()
	s.note("got: %d", sig)
	s.got[sig]++
	invented := s.got[sig] > s.sent[sig]-s.skipped[sig] || neverForwarded(sig)
	s.mu.Unlock()
	if invented {
		s.fail("signal %d arrived, and was not sent", sig)
	}
}

// note remembers for the case of a failure. The lock is held.
func (s *soak) note(format string, args ...any) {
	const most = 200
	if len(s.history) == 2*most {
		s.history = append(s.history[:0], s.history[most:]...)
	}
	s.history = append(s.history, fmt.Sprintf("%10.3f %s", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...)))
}

// fail notes a failure, which ends the soak soon.
func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
	s.note("FAILURE: "+format, args...)
}

func (s *soak) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

// await polls until the condition, which has the lock, holds. It gives up with
// a failure; one that there is already is reason enough too.
func (s *soak) await(what string, holds func() bool) bool {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		running := s.in.Running()
		s.mu.Lock()
		ok, failed := holds(), len(s.failures) > 0
		var pending []string
		for id, what := range s.pending {
			pending = append(pending, id+" "+what)
		}
		s.mu.Unlock()
		switch {
		case ok:
			return true
		case failed:
			return false
		case !running:
			s.fail("the container ended with %d while the test waited for %s", s.in.code(), what)
			return false
		case time.Now().After(deadline):
			s.fail("waited in vain for %s; under way: %q", what, pending)
			return false
		}
	}
}

// tell reports the failures, and how it came to them.
func (s *soak) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failures {
		s.t.Errorf("%s", f)
	}
	if s.t.Failed() {
		const most = 60
		s.t.Logf("seed %d, the last events:\n%s", s.seed, strings.Join(s.history[max(0, len(s.history)-most):], "\n"))
	}
}
