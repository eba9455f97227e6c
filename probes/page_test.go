// SPDX-License-Identifier: Apache-2.0

package probes_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes"
	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

// pageMax is what the page may weigh: it is in every container.
const pageMax = 12_900

func getPage(t *testing.T) (page, policy string) {
	t.Helper()
	addr := start(t, probes.Endpoints(running))
	resp, page := probe(t, kubelet(t), http.MethodGet, "http://"+addr+"/")
	require.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"))
	return page, resp.Header.Get("Content-Security-Policy")
}

// TestPagePolicy holds the hashes of the policy against the page.
func TestPagePolicy(t *testing.T) {
	page, policy := getPage(t)
	hash := func(element string) string {
		found := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(page, -1)
		require.Len(t, found, 1, "<%s> elements", element)
		sum := sha256.Sum256([]byte(found[0][1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	assert.Equal(t, "default-src 'none'; script-src "+hash("script")+"; style-src "+hash("style")+"; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'", policy, "page.html was changed: put these hashes into page.go")
}

func TestPageIsSmallAndAlone(t *testing.T) {
	page, _ := getPage(t)
	assert.LessOrEqual(t, len(page), pageMax)
	for _, bad := range []string{"http:", "https:", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " style=", " onclick="} {
		assert.NotContains(t, page, bad)
	}
}

// day is when the runs of these tests were.
var day = time.Date(2026, 3, 14, 3, 12, 0, 0, time.UTC)

func after(seconds float64) time.Time {
	return day.Add(time.Duration(seconds * float64(time.Second)))
}

func ref(n int) *int { return &n }

func done(name string, kind report.Kind, from, to float64) report.Step {
	return report.Step{
		Name: name, Kind: kind, Result: report.ResultOK, Attempts: 1, StartedAt: after(from), EndedAt: after(to), Seconds: after(to).Sub(after(from)).Seconds(),
		Code: ref(0), TimeoutSeconds: 600, CPUSeconds: (to - from) / 3, MaxRSSBytes: 23 << 20,
	}
}

// starting is a run in the middle of its hooks.
func starting() *report.Report {
	retried := done("20-migrate", report.KindHook, 3.1, 11.4)
	retried.Attempts = 2
	busy := done("30-warm-cache", report.KindHook, 11.4, 0)
	busy.Result, busy.EndedAt, busy.Code, busy.CPUSeconds, busy.MaxRSSBytes, busy.TimeoutSeconds = report.ResultRunning, time.Time{}, nil, 0, 0, 30
	return &report.Report{
		Version: report.Version, Init: "1.0.0", Phase: report.Hooks, Instance: "4026532256", At: after(15.2), StartedAt: day,
		Phases: []report.Passed{{Phase: report.Starting, At: day}, {Phase: report.Hooks, At: after(0.1)}},
		Steps: []report.Step{
			done("05-storage", report.KindHook, 0.1, 0.4), done("10-wait-for-db", report.KindHook, 0.4, 3.1), retried, busy,
			{Name: "40-announce", Kind: report.KindHook, Result: report.ResultPending, TimeoutSeconds: 600},
			{Name: "10-deregister", Kind: report.KindStop, Result: report.ResultPending, TimeoutSeconds: 600},
		},
	}
}

// serving is the same one when the command runs.
func serving() *report.Report {
	r := starting()
	r.Steps[3] = done("30-warm-cache", report.KindHook, 11.4, 19.7)
	r.Steps[4] = done("40-announce", report.KindHook, 19.7, 19.9)
	r.Phase, r.Started, r.At = report.Running, true, after(7800)
	r.Phases = append(r.Phases, report.Passed{Phase: report.Running, At: after(19.9)})
	r.Command = &report.Command{Name: "nginx", PID: 42, StartedAt: after(19.9)}
	r.Signals, r.Forwarded, r.Reaped = map[string]int{"HUP": 2, "WINCH": 1}, map[string]int{"HUP": 2, "WINCH": 1}, 1204
	r.Steps[2].Warnings = []string{"memory 231Mi of 256Mi"}
	r.Cgroup = &report.Cgroup{
		Version: "v2", CPULimit: 0.25, MemoryLimitBytes: 256 << 20, PidsLimit: 100, CPUSeconds: 1.9, Periods: 300, ThrottledPeriods: 271, ThrottledSeconds: 21,
		MemoryBytes: 210 << 20, MemoryPeakBytes: 256 << 20, Pids: 12, OOMKills: 1, PidsRefused: 7, OOMGroup: true,
		Pressure: map[string]report.Pressure{"cpu": {SomeSeconds: 1, FullSeconds: 0.5}, "memory": {SomeSeconds: 0.000001}},
	}
	return r
}

// stopped is the same one at its end.
func stopped() *report.Report {
	r := serving()
	r.Phase, r.At, r.EndedAt, r.ExitCode = report.Ended, after(7814), after(7814), ref(0)
	r.Phases = append(r.Phases, report.Passed{Phase: report.Draining, At: after(7800)}, report.Passed{Phase: report.Stopping, At: after(7805)},
		report.Passed{Phase: report.Ended, At: after(7814)})
	r.Command.EndedAt, r.Command.Code = after(7811.2), ref(0)
	r.Steps[5] = done("10-deregister", report.KindStop, 7811.3, 7813.9)
	r.Signals["TERM"], r.Forwarded["TERM"] = 1, 1
	return r
}

// broken is one whose third hook ran into its timeout.
func broken() *report.Report {
	r := starting()
	s := &r.Steps[3]
	s.Result, s.EndedAt, s.Seconds, s.Code = report.ResultTimeout, after(41.4), 30, ref(124)
	s.Reason = "timed out after 30s"
	r.Steps[4].Result = report.ResultNotStarted
	r.Steps[5] = done("10-deregister", report.KindStop, 41.5, 42)
	r.Failure = &report.Failure{
		Step: "30-warm-cache", Cause: report.TimedOut, Code: 124,
		Reason: "timed out after 30s (STEP_TIMEOUTS); it used 1.9s of CPU, throttled in 271 of 300 periods by the CPU limit of 250m",
	}
	r.Phase, r.At, r.EndedAt, r.ExitCode = report.Ended, after(42.1), after(42.1), ref(124)
	r.Phases = append(r.Phases, report.Passed{Phase: report.Stopping, At: after(41.4)}, report.Passed{Phase: report.Ended, At: after(42.1)})
	return r
}

// TestPage looks at the page with a real browser.
func TestPage(t *testing.T) {
	b := openBrowser(t)
	for name, test := range map[string]func(*testing.T, *browser){
		"each phase": testPagePhases, "hostile report": testPageRunsNothingOfAReport, "file": testPageOpensAReport, "no server": testPageWithoutAServer,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// testPagePhases, with PAGE_SCREENSHOTS set to a directory, leaves pictures
// there, for people.
func testPagePhases(t *testing.T, browser *browser) {
	b := browser.tab(t)
	var now atomic.Pointer[report.Report]
	now.Store(starting())
	addr := start(t, probes.Endpoints(now.Load))
	shoot := func(name string) {
		dir := os.Getenv("PAGE_SCREENSHOTS")
		if dir == "" {
			return
		}
		for _, d := range []struct {
			name          string
			width, height int
			scheme        string
		}{{"light", 1100, 800, "light"}, {"dark", 1100, 800, "dark"}, {"phone", 390, 800, "light"}} {
			b.device(d.width, d.height, d.scheme)
			time.Sleep(300 * time.Millisecond)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name+"-"+d.name+".png"), b.screenshot(), 0o644))
		}
	}

	b.device(1100, 800, "light")
	b.open("http://" + addr + "/")
	b.shows("step 30-warm-cache · 4 of 5")
	shoot("starting")
	// Everything that follows comes without a reload.
	now.Store(serving())
	b.shows("nginx · pid 42 · for 2 h 10 min")
	assert.Contains(t, b.text(), "210 MiB of 256 MiB")
	shoot("running")
	now.Store(checked())
	b.shows("readiness check: connection refused")
	b.shows("loading 3 of 7 shards")
	shoot("not-ready")
	now.Store(stopped())
	b.shows("nginx · code 0")
	shoot("ended")
	told := stopped() // a command that leaves TERM to the kernel
	told.Command.Code, told.ExitCode = ref(143), ref(143)
	now.Store(told)
	b.shows("nginx · code 143")
	assert.Equal(t, "rest", b.eval("document.querySelector('h1').className"), "no failure")
	assert.NotContains(t, b.text(), "failed")
	early := broken() // while the stop hooks run
	early.Phase, early.Steps[4].Result = report.Stopping, report.ResultPending
	now.Store(early)
	b.shows("step 30-warm-cache timed out · code 124 · stopping")
	assert.Contains(t, b.text(), "not started", "and it will not be")
	now.Store(broken())
	b.shows("step 30-warm-cache timed out · code 124\n")
	assert.Contains(t, b.text(), "throttled in 271 of 300 periods")
	shoot("failed")

	b.device(390, 800, "dark")
	assert.Equal(t, "true", b.eval("document.documentElement.scrollWidth <= 390"), "a phone does not have to scroll sideways")
	assert.Empty(t, b.complaints())
}

// testPageRunsNothingOfAReport: the name of a hook is whatever a file is
// called.
func testPageRunsNothingOfAReport(t *testing.T, browser *browser) {
	const evil = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>"'` + "`${document.title='taken'}`</b>\x00\xff\u202e"
	t.Parallel()
	b := browser.tab(t)
	r := broken()
	for i := range r.Steps {
		r.Steps[i].Name, r.Steps[i].Reason = evil, evil
		r.Steps[i].Result = report.Result(evil)
	}
	r.Command = &report.Command{Name: evil, StartedAt: after(1)}
	r.Failure.Step, r.Failure.Reason, r.Failure.Cause = evil, evil, report.Cause(evil)
	r.Skipped, r.Init, r.Instance = []string{evil}, evil, evil
	r.Signals, r.Forwarded = map[string]int{evil: 1, "__proto__": 2}, map[string]int{evil: 3}
	addr := start(t, probes.Endpoints(func() *report.Report { return r }))

	b.open("http://" + addr + "/")
	b.shows("<script>document.title='taken'</script>")
	assert.NotEqual(t, "taken", b.eval("document.title"))
	assert.Equal(t, "0", b.eval("document.querySelectorAll('img').length"))
	assert.Equal(t, "1", b.eval("document.scripts.length"))
	assert.Empty(t, b.complaints())

	// Were a name to become markup after all, the policy would stop it.
	b.eval(`document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=x onerror="document.title=1"><p style="color:red">')`)
	b.eval(`fetch('http://127.0.0.1:1/').catch(() => 0)`)
	require.Eventually(t, func() bool { return len(b.complaints()) >= 3 }, 20*time.Second, 20*time.Millisecond)
	for _, complaint := range b.complaints() {
		assert.Contains(t, complaint, "Content Security Policy")
	}
	assert.NotEqual(t, "1", b.eval("document.title"))
}

// testPageOpensAReport as REPORT_FILE leaves one.
func testPageOpensAReport(t *testing.T, browser *browser) {
	b := browser.tab(t)
	addr := start(t, probes.Endpoints(running))
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "report.json"), filepath.Join(dir, "other.json")
	require.NoError(t, os.WriteFile(good, broken().JSON(), 0o644))
	require.NoError(t, os.WriteFile(bad, []byte(`{"version": 99}`), 0o644))

	b.open("http://" + addr + "/")
	b.shows("Running")
	b.choose(good)
	b.shows("step 30-warm-cache timed out · code 124")
	b.shows("from file report.json")
	b.choose(bad)
	b.shows("other.json is no report")

	// Dropped on it.
	b.eval(`(() => {
		const data = new DataTransfer
		data.items.add(new File([` + "`" + strings.TrimSpace(string(stopped().JSON())) + "`" + `], 'dropped.json'))
		document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))
	})()`)
	b.shows("from file dropped.json")
	b.shows("nginx · code 0")
	assert.Empty(t, b.complaints())
}

// testPageWithoutAServer: the container has ended, and the page stays.
func testPageWithoutAServer(t *testing.T, browser *browser) {
	b := browser.tab(t)
	l, err := probes.Listen("127.0.0.1:0")
	require.NoError(t, err)
	s := probes.New(l, probes.Endpoints(serving), nil)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve() }()
	b.open("http://" + l.Addr().String() + "/")
	b.shows("nginx · pid 42")
	s.Close()
	require.NoError(t, <-ended)
	b.shows("no answer")
	assert.Contains(t, b.text(), "nginx · pid 42", "what was known last")
}
