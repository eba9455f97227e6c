// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("neglect", "3", ";", "trap", "-on", "TERM=3"),
		Env:  env("CLEANIMG_INIT_SIGNAL_REWRITE=USR2:HUP", "CLEANIMG_INIT_STEP_TIMEOUTS=20-b:45s"),
		Files: []File{
			Hook("10-a", "exit 0"),
			Step("20-b.yaml", runs("exit", "4"), "retries: 1", "backoff: 1ms", "onFailure: continue"),
			StopHook("10-stop", "touch /tmp/stop", "await /tmp/end"),
		},
	})
	in.WaitStdout("ready")
	in.WaitStatus("/health/ready", 200)
	in.Signal(syscall.SIGUSR1)
	in.WaitStdout("got USR1")
	in.Signal(syscall.SIGUSR2)
	in.WaitStdout("got HUP")
	var text string
	scraped := func(lines ...string) {
		t.Helper()
		in.eventually("the metrics "+strings.Join(lines, ", "), func() bool {
			_, text, _ = in.Get("/metrics")
			for _, line := range lines {
				if !strings.Contains(text, "\ncleanimg_init_"+line+"\n") {
					return false
				}
			}
			return true
		})
	}
	scraped(
		"zombies 3",
		`phase{phase="running"} 1`, `probe_success{probe="ready"} 1`,
		`step_result{step="10-a",kind="hook",result="ok"} 1`, `step_result{step="20-b",kind="hook",result="continued"} 1`,
		`step_attempts_total{step="20-b",kind="hook"} 2`, `step_exit_code{step="20-b",kind="hook"} 4`, `step_timeout_seconds{step="20-b",kind="hook"} 45`,
		`signals_received_total{signal="USR1"} 1`, `signals_received_total{signal="USR2"} 1`,
		`signals_forwarded_total{signal="USR1"} 1`, `signals_forwarded_total{signal="HUP"} 1`,
	)
	assert.NotContains(t, text, `forwarded_total{signal="USR2"}`)
	in.Signal(syscall.SIGTERM)
	in.WaitFile("/tmp/stop")
	scraped(`phase{phase="stopping"} 1`, `probe_success{probe="ready"} 0`, `step_result{step="10-stop",kind="stop",result="running"} 1`)
	in.touch("/tmp/end")
	assert.Equal(t, 3, in.Wait())
}

// TestPrometheusScrapes lets a real server do it.
func TestPrometheusScrapes(t *testing.T) {
	t.Parallel()
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed")
	}
	h := host(t, map[string][]string{"10-a.yaml": {"run: [" + testprogPath + ", exit, '0']"}}, nil, testprogPath, "trap", "-on", "TERM=0")
	h.waitStatus("/health/ready", 200)

	dir, addr := t.TempDir(), freeAddr(t)
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, []byte("scrape_configs:\n- job_name: init\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n"+
		"  static_configs: [{targets: ['"+h.Addr+"']}]\n"), 0o644))
	cmd := exec.Command(prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	said := &Output{}
	cmd.Stderr = said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus:\n%s", tail(said.String()))
		}
	})

	query := func(expression string) (value string) {
		var answer struct {
			Data struct{ Result []struct{ Value []any } }
		}
		status, body, err := getHere(addr, "/api/v1/query?query="+url.QueryEscape(expression))
		if err != nil || status != 200 || json.Unmarshal([]byte(body), &answer) != nil || len(answer.Data.Result) == 0 {
			return ""
		}
		value, _ = answer.Data.Result[0].Value[1].(string)
		return value
	}
	wait := func(expression, want string) {
		t.Helper()
		require.Eventually(t, func() bool { return query(expression) == want }, patience, 50*time.Millisecond, "%s to be %s", expression, want)
	}
	wait("up", "1")
	wait(`cleanimg_init_probe_success{probe="ready"}`, "1")
	wait(`cleanimg_init_step_result{step="10-a",kind="hook",result="ok"}`, "1")
	samples, err := strconv.Atoi(query("scrape_samples_scraped"))
	require.NoError(t, err)
	assert.Greater(t, samples, 20)

	// A counter counts.
	require.NoError(t, syscall.Kill(h.PID, syscall.SIGUSR1))
	wait(`cleanimg_init_signals_forwarded_total{signal="USR1"}`, "1")
	require.NoError(t, syscall.Kill(h.PID, syscall.SIGUSR1))
	wait(`cleanimg_init_signals_forwarded_total{signal="USR1"}`, "2")
}
