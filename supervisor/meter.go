// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

const (
	// From these parts of a limit on it is worth a warning.
	muchMemory = 0.9
	manyPids   = 0.8
	// While a step runs, its use is looked at so often; what it may use, when
	// nothing is limited.
	firstLook, everyLook, seldomLook = 100 * time.Millisecond, time.Second, 5 * time.Second
)

// A gauge looks at the container's limits for all that runs in it. Its zero
// value is ready, and reads nothing before it is asked to: a start without hooks
// has no need of it.
type gauge struct {
	log  *slog.Logger
	once sync.Once
	box  *cgroup.Box // with every controller that there is
	// unified is our directory in the hierarchy of v2, which has pressure where
	// controllers are on v1, too.
	unified string

	mu     sync.Mutex
	limits cgroup.Limits // as they were seen last
}

// open finds the box.
func (w *gauge) open() *cgroup.Box {
	w.once.Do(func() {
		w.box, w.unified = cgroup.Where{}.Find(), cgroup.Where{}.Unified()
		w.limits = w.box.Limits()
	})
	return w.box
}

// seen enters the limits as they are, and tells when they were changed: a pod
// was resized.
func (w *gauge) seen(now cgroup.Limits) {
	w.mu.Lock()
	before := w.limits
	w.limits = now
	w.mu.Unlock()
	if now == before {
		return
	}
	for _, l := range []struct{ name, from, to string }{
		{"cpu", cpuWords(before.CPU), cpuWords(now.CPU)},
		{"memory", memoryWords(before.Memory), memoryWords(now.Memory)},
		{"pids", pidsWords(before.Pids), pidsWords(now.Pids)},
	} {
		if l.from != l.to {
			w.log.Info("a limit of the container was changed", "limit", l.name, "from", cmp.Or(l.from, "none"), "to", cmp.Or(l.to, "none"))
		}
	}
}

// last are the limits as they were seen last.
func (w *gauge) last() cgroup.Limits {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limits
}

// The limits in words; empty where there is none.

func cpuWords(cores float64) string {
	if cores == 0 {
		return ""
	}
	return cgroup.Millicores(cores)
}

func memoryWords(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return cgroup.Bytes(bytes)
}

func pidsWords(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// A sight is what is seen of the limits while a step, or the command, runs. It
// is for one goroutine at a time.
type sight struct {
	w      *gauge
	who    []any             // "step" and its name, or "command" and its
	note   func(text string) // puts a warning into the report
	files  *cgroup.Gauge
	before cgroup.Marks
	peak   int64 // of the container, as it was before
	most   int64 // of what was seen
	// What was told, once each.
	memory, pids bool
	kills, trips int64
}

func (w *gauge) sight(note func(string), who ...any) *sight {
	box := w.open()
	s := &sight{w: w, who: who, note: note, files: box.Gauge(), before: box.Marks(), peak: box.MemoryPeak()}
	_, _, _ = s.files.Read() // so that all that it needs is in memory while there is some
	return s
}

// look looks at what is in use, and warns where it is much.
func (s *sight) look() cgroup.Limits {
	limits, memory, pids := s.files.Read()
	s.w.seen(limits)
	s.most = max(s.most, memory.Used)
	if !s.memory && memory.Reaches(muchMemory) {
		s.memory = true
		s.warn("near the memory limit", "memory "+usageOfMemory(memory), "used", cgroup.Bytes(memory.Used), "limit", cgroup.Bytes(memory.Limit))
	}
	if !s.pids && pids.Reaches(manyPids) {
		s.pids = true
		text, attrs := usageOfPids(pids), []any{"used", pids.Used, "limit", pids.Limit}
		if parent := negligent(); parent != "" {
			text += ", zombies that their parent does not reap: " + parent
			attrs = append(attrs, "not_reaped_by", parent)
		}
		s.warn("near the pids limit", text, attrs...)
	}
	return limits
}

func (s *sight) warn(phrase, note string, attrs ...any) {
	s.w.log.Warn(phrase, append(s.who, attrs...)...)
	if s.note != nil {
		s.note(note)
	}
}

// lost tells what the limits took since it was asked last.
func (s *sight) lost() {
	kills, trips := s.w.box.Marks().Since(s.before)
	limits := s.w.box.Limits()
	if kills > s.kills {
		s.w.log.Warn("out of memory: the kernel killed a process of the container",
			append(s.who, "kills", kills-s.kills, "memory_limit", cmp.Or(memoryWords(limits.Memory), "none"))...)
	}
	if trips > s.trips {
		s.w.log.Warn("the pids limit was hit: no process or thread could be started",
			append(s.who, "times", trips-s.trips, "limit", cmp.Or(pidsWords(limits.Pids), "none"))...)
	}
	s.kills, s.trips = max(s.kills, kills), max(s.trips, trips)
}

// toll is what the limits took in all.
func (s *sight) toll() hooks.Toll {
	limits := s.look()
	t := hooks.Toll{Memory: memoryWords(limits.Memory), Pids: pidsWords(limits.Pids), Peak: s.most}
	t.OOMKills, t.PidsTrips = s.w.box.Marks().Since(s.before)
	// The kernel's own figure is of the container's whole life.
	if peak := s.w.box.MemoryPeak(); peak > s.peak {
		t.Peak = peak
	}
	return t
}

// A meter is the sight of a step, with its own goroutine.
type meter struct {
	sight
	stop, done chan struct{}
}

// newMeter watches a try of a step.
func (s *supervisor) newMeter(step string, stop bool) hooks.Meter {
	note := func(text string) { s.ledger.note(step, stop, text) }
	m := &meter{sight: *s.gauge.sight(note, "step", step), stop: make(chan struct{}), done: make(chan struct{})}
	go m.run()
	return m
}

func (m *meter) run() {
	defer close(m.done)
	pause := firstLook
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-timer.C:
		}
		limits := m.look()
		pause = min(2*pause, everyLook)
		if limits.Memory == 0 && limits.Pids == 0 {
			pause = seldomLook
		}
		timer.Reset(pause)
	}
}

// handicap is how many bytes a step's memory counts more than ours, when the
// kernel chooses whom to kill. We have some 6 MB.
const handicap = 16 << 20

// Started makes the kernel choose the step, and what it starts, rather than us
// when the container's memory runs out: without us nobody could say what
// happened. Anybody may make that value higher; where it can't be written it
// stays.
func (m *meter) Started(pid int) {
	limit := m.w.box.Limits().Memory
	if limit == 0 {
		return // the machine's memory is not for us to judge
	}
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return
	}
	ours, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	theirs := min(ours+int(handicap*1000/limit)+1, 1000) // in thousandths of the limit
	file, err := os.OpenFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer file.Close()
	_, _ = file.WriteString(strconv.Itoa(theirs))
}

// Usage says what is in use now.
func (m *meter) Usage() string {
	return inUse(m.w.box)
}

// inUse says what is in use of the limits, if there are any.
func inUse(box *cgroup.Box) string {
	var all []string
	_, memory, pids := box.Usage()
	if memory.Limit > 0 && memory.Used >= 0 {
		all = append(all, "memory "+usageOfMemory(memory))
	}
	if pids.Reaches(manyPids) {
		all = append(all, usageOfPids(pids))
	}
	return strings.Join(all, ", ")
}

func usageOfMemory(u cgroup.Usage) string {
	return cgroup.Bytes(u.Used) + " of " + cgroup.Bytes(u.Limit)
}

func usageOfPids(u cgroup.Usage) string {
	return fmt.Sprintf("%d of %d processes and threads", u.Used, u.Limit)
}

// Full says which limit on processes is reached.
func (m *meter) Full() string { return m.w.box.WhyNoProcess() }

// Stop ends it.
func (m *meter) Stop() hooks.Toll {
	close(m.stop)
	<-m.done
	defer m.files.Close()
	return m.toll()
}
