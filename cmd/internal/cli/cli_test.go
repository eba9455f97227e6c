// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type settings struct {
	services []string
	timeout  time.Duration
	retries  int
	once     bool
	header   string
	file     string
}

// tool is one with an option of each kind.
func tool(s *settings, run func(context.Context, *Process) error) Tool {
	return Tool{
		Name: "ask", Prefix: "ASK", Usage: "ask [options] WORD…", About: "Asks.", Notes: "Example:\n  ask x", SingleDash: true,
		Flags: func(f *Flags) {
			f.StringArrayVar(&s.services, "service", nil, "`URL` a service to ask")
			f.Duration(&s.timeout, "timeout", 5*time.Minute, "how long")
			f.IntVarP(&s.retries, "max-retries", "r", 3, "tries")
			f.BoolVar(&s.once, "once", false, "ask once")
			f.StringVar(&s.header, "header", "", "a header")
			f.StringVar(&s.file, "header-file", "", "a file with headers")
		},
		Known: func(name string) bool { return name == "ASK_VALUE" },
		Run:   run,
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_ROLE") == "" {
		os.Exit(m.Run())
	}
	Main(tool(&settings{}, func(ctx context.Context, p *Process) error {
		fmt.Fprintln(p.Stdout, "ready")
		switch os.Getenv("CLI_TEST_ROLE") {
		case "deaf":
			time.Sleep(time.Minute)
		case "done":
			<-ctx.Done()
			return nil
		}
		<-ctx.Done()
		return fmt.Errorf("wait: %w", context.Cause(ctx))
	}))
}

// execute runs the tool in this process.
func execute(t Tool, environ []string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = t.Execute(append([]string{"/bin/ask"}, args...), environ, nil, &out, &err)
	return code, out.String(), err.String()
}

func TestOptionsAndVariables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "value")
	require.NoError(t, os.WriteFile(file, []byte("from-file\n"), 0o600))
	defaults := settings{timeout: 5 * time.Minute, retries: 3}
	with := func(f func(*settings)) settings {
		s := defaults
		f(&s)
		return s
	}
	tests := []struct {
		name    string
		environ []string
		args    []string
		want    settings
		words   []string
		dash    int
	}{
		{name: "nothing", want: defaults, dash: -1},
		{name: "options among words", args: []string{"a", "--timeout", "3", "b", "--once"}, want: with(func(s *settings) { s.timeout, s.once = 3*time.Second, true }), words: []string{"a", "b"}, dash: -1},
		{name: "single dashes", args: []string{"-timeout=250ms", "-once", "-r", "4"}, want: with(func(s *settings) { s.timeout, s.once, s.retries = 250*time.Millisecond, true, 4 }), dash: -1},
		{name: "a negative number", args: []string{"-once", "force", "-1"}, want: with(func(s *settings) { s.once = true }), words: []string{"force", "-1"}, dash: 1},
		{name: "after --", args: []string{"a", "--", "--once", "-once"}, want: defaults, words: []string{"a", "--once", "-once"}, dash: 1},
		{
			name: "variables", environ: []string{"ASK_SERVICE= a:1\n b:2 ", "ASK_TIMEOUT=7", "ASK_MAX_RETRIES=9", "ASK_ONCE=true"},
			want: settings{services: []string{"a:1", "b:2"}, timeout: 7 * time.Second, retries: 9, once: true}, dash: -1,
		},
		{name: "option over variable", environ: []string{"ASK_SERVICE=a:1", "ASK_TIMEOUT=7"}, args: []string{"--service", "c:3", "--service=d 4", "--timeout", "1m"}, want: with(func(s *settings) { s.services, s.timeout = []string{"c:3", "d 4"}, time.Minute }), dash: -1},
		{name: "empty is the default", environ: []string{"ASK_TIMEOUT=", "ASK_ONCE=", "ASK_SERVICE="}, want: defaults, dash: -1},
		{name: "a file for a value", environ: []string{"ASK_SERVICE_FILE=" + file}, want: with(func(s *settings) { s.services = []string{"from-file"} }), dash: -1},
		{name: "an option called like the file of another", environ: []string{"ASK_HEADER_FILE=" + file}, want: with(func(s *settings) { s.file = file }), dash: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got settings
			var p *Process
			code, _, stderr := execute(tool(&got, func(_ context.Context, process *Process) error { p = process; return nil }), tt.environ, tt.args...)
			require.Equal(t, 0, code, stderr)
			assert.Empty(t, stderr)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, tt.words, append([]string(nil), p.Args...))
			assert.Equal(t, tt.dash, p.Dash)
			assert.Equal(t, "ask", p.Name)
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	ran := false
	code, stdout, stderr := execute(tool(&settings{}, func(context.Context, *Process) error { ran = true; return nil }),
		[]string{"ASK_MAX_RETRIES=many", "ASK_ONCE=perhaps", "ASK_HEADER=x", "ASK_SERVICE=a", "ASK_SERVICE_FILE=/x", "ASK_LOG_LEVEL=loud"},
		"--timeout", "soon", "--log-format=xml")
	assert.Equal(t, 125, code)
	assert.False(t, ran, "nothing is run")
	assert.Empty(t, stdout)
	for _, want := range []string{
		`ask: option --timeout "soon": accepted are durations`,
		`ask: option --log-format "xml": accepted are text and json`,
		`ask: ASK_MAX_RETRIES="many": accepted is a whole number`,
		`ask: ASK_ONCE="perhaps": accepted are true and false`,
		`ask: ASK_LOG_LEVEL="loud": accepted are debug, info, warn and error`,
		`ask: ASK_SERVICE and ASK_SERVICE_FILE are both set`,
	} {
		assert.Contains(t, stderr, want)
	}
	code, _, stderr = execute(tool(&settings{}, nil), nil, "--never")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "ask: unknown flag: --never: see --help")
}

// What Kubernetes has not replaced is named, wherever it is given, and no secret
// beside it.
func TestUnreplacedReferences(t *testing.T) {
	t.Parallel()
	var s settings
	ask := tool(&s, func(context.Context, *Process) error { return nil })
	_, _, stderr := execute(ask, []string{"ASK_SERVICE=tcp://$(HOST) tcp://$HOST:1"}, "--header", "x$(DB_PASSWORD)s3cr3t", "$(A.b-c)", "$()", "$(a b)", "--", "$(THEIRS)")
	assert.Equal(t, 3, strings.Count(stderr, "is not replaced"), stderr)
	for _, want := range []string{"--service: the reference to HOST is", "--header: the reference to DB_PASSWORD is", "argument: the reference to A.b-c is"} {
		assert.Contains(t, stderr, want)
	}
	assert.NotContains(t, stderr, "s3cr3t")
}

// One run tells all that has to be corrected, and what may be the reason.
func TestChecksAreReportedWithBadValues(t *testing.T) {
	t.Parallel()
	var s settings
	check := tool(&s, func(context.Context, *Process) error { t.Error("nothing is run"); return nil })
	check.Check = func(p *Process) error {
		p.Log.Debug("there is a log")
		return errors.Join(errors.New("no service"), fmt.Errorf("%d words", len(p.Args)))
	}
	code, _, stderr := execute(check, []string{"ASK_SERVICES=a"}, "--timeout=soon", "x")
	assert.Equal(t, 125, code)
	assert.Contains(t, stderr, "unknown variable ASK_SERVICES")
	assert.Contains(t, stderr, `option --timeout "soon"`)
	assert.Contains(t, stderr, "ask: no service\nask: 1 words\n")

	code, _, stderr = execute(check, nil, "--never", "x")
	assert.Equal(t, 125, code)
	assert.NotContains(t, stderr, "words", "what could not be read is not judged")

	check.Check = func(*Process) error { return nil }
	check.Run = func(context.Context, *Process) error { s.once = true; return nil }
	code, _, stderr = execute(check, nil)
	assert.Equal(t, 0, code, stderr)
	assert.True(t, s.once)
}

func TestNegativeValues(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-timeout", "-3"}, {"--timeout", "-3"}, {"-timeout=-3"}} {
		_, _, stderr := execute(tool(&settings{}, nil), nil, args...)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		assert.Contains(t, stderr, `option --timeout "-3": accepted are durations`)
	}
}

func TestUnknownVariablesAreWarnedOf(t *testing.T) {
	t.Parallel()
	code, _, stderr := execute(tool(&settings{}, func(context.Context, *Process) error { return nil }), []string{
		"ASK_SERVICES=a", "ASK_PORTS=1", "ASK_VALUE=1", "ASK_PORT=tcp://10.0.0.1:80", "ASK_SERVICE_HOST=10.0.0.1", "ASK_PORT_80_TCP=x", "OTHER=1",
	})
	assert.Equal(t, 0, code)
	assert.Equal(t, 2, strings.Count(stderr, "\n"), stderr)
	assert.Contains(t, stderr, "unknown variable ASK_SERVICES")
	assert.Contains(t, stderr, "unknown variable ASK_PORTS")
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		code int
		says string
	}{
		"done":             {},
		"failed":           {errors.New("no such host"), 125, "ask: no such host\n"},
		"two problems":     {errors.Join(errors.New("one"), errors.New("two")), 125, "ask: one\nask: two\n"},
		"a timeout":        {fmt.Errorf("wait for a: %w", context.DeadlineExceeded), 124, "ask: wait for a: context deadline exceeded\n"},
		"a code":           {fmt.Errorf("run: %w", Exit(7, errors.New("seven"))), 7, "ask: run: seven\n"},
		"a code, no words": {Exit(1, nil), 1, ""},
		"a secret":         {errors.New("dial postgres://u:hunter22@db/x and s3cr3t-value"), 125, "ask: dial postgres://u:***@db/x and ***\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := execute(tool(&settings{}, func(context.Context, *Process) error { return tt.err }), []string{"DB_PASSWORD=s3cr3t-value"})
			assert.Equal(t, tt.code, code)
			assert.Equal(t, tt.says, stderr)
			assert.Empty(t, stdout)
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := execute(tool(&settings{}, nil), []string{"ASK_TIMEOUT=bad"}, "--help")
	assert.Equal(t, 0, code)
	assert.Empty(t, stderr)
	for _, want := range []string{"Usage:\n  ask [options] WORD…\n", "ASK_SERVICE is --service", "--service URL …\n      a service to ask\n", "--timeout DURATION\n      how long (default 5m)\n", "Durations: 5m", "-r, --max-retries", "--log-format text|json", "Example:\n  ask x", "  124  a timeout"} {
		assert.Contains(t, stdout, want)
	}
	for line := range strings.Lines(stdout) {
		assert.LessOrEqual(t, len(line), 81, line)
	}
	code, stdout, _ = execute(tool(&settings{}, nil), nil, "--version")
	assert.Equal(t, 0, code)
	assert.Regexp(t, `^ask \S+ \(.*go1\.`, stdout)
}

// What a tool has none of is not explained.
func TestHelpHasOnlyWhatThereIs(t *testing.T) {
	t.Parallel()
	tool := Tool{Name: "make", Prefix: "MAKE", Usage: "make", About: "Makes.", Flags: func(f *Flags) { f.String("dir", "", "`DIR` where") }}
	code, stdout, _ := execute(tool, nil, "--help")
	assert.Equal(t, 0, code)
	assert.Contains(t, stdout, "MAKE_DIR is --dir")
	for _, other := range []string{"124", "Durations", "repeated"} {
		assert.NotContains(t, stdout, other)
	}
}

func TestDurationsInHelp(t *testing.T) {
	t.Parallel()
	for value, want := range map[time.Duration]string{
		0: "0", 3 * time.Second: "3s", 5 * time.Minute: "5m", time.Hour: "1h", 10 * time.Minute: "10m", 70 * time.Second: "1m10s", 90 * time.Minute: "1h30m",
		20 * time.Hour: "20h", 250 * time.Millisecond: "250ms", time.Hour + 5*time.Second: "1h0m5s",
	} {
		assert.Equal(t, want, (*duration)(&value).String())
	}
}

func TestLogsAreRedacted(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		_, _, stderr := execute(tool(&settings{}, func(_ context.Context, p *Process) error {
			p.Log.Info("connected", "url", "redis://:hunter22@cache", "took", 90*time.Second)
			return errors.New("lost s3cr3t-value")
		}), []string{"DB_PASSWORD=s3cr3t-value"}, "--log-format", format)
		assert.NotContains(t, stderr, "hunter22")
		assert.NotContains(t, stderr, "s3cr3t")
		assert.Contains(t, stderr, "1m30s")
		if format == "json" {
			assert.Contains(t, stderr, `"level":"ERROR","msg":"lost ***"`)
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		role string
		send []syscall.Signal
		code int
		says string
	}{
		{"polite", []syscall.Signal{syscall.SIGTERM}, 143, "ask: stopped by SIGTERM\n"},
		{"polite", []syscall.Signal{syscall.SIGINT}, 130, "ask: stopped by SIGINT\n"},
		{"done", []syscall.Signal{syscall.SIGTERM}, 143, "ask: stopped by SIGTERM\n"}, // what was interrupted is not done
		{"deaf", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 130, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.role, tt.send), func(t *testing.T) {
			t.Parallel()
			self, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.Command(self)
			cmd.Env = []string{"CLI_TEST_ROLE=" + tt.role}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			_, err = bufio.NewReader(out).ReadString('\n')
			require.NoError(t, err)
			for i, sig := range tt.send {
				if i > 0 { // the kernel may deliver two pending signals in any order
					time.Sleep(100 * time.Millisecond)
				}
				require.NoError(t, cmd.Process.Signal(sig))
			}
			_ = cmd.Wait()
			assert.Equal(t, tt.code, cmd.ProcessState.ExitCode(), stderr.String())
			assert.Equal(t, tt.says, stderr.String())
		})
	}
}

func TestTerminationMessage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "termination-log")
	writeTermination(path, "x")
	assert.NoFileExists(t, path, "it is never created")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("old"), 1000), 0o600))
	writeTermination(path, "ask: no such host")
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "ask: no such host", string(got))
	writeTermination(path, strings.Repeat("é", 600))
	got, err = os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, strings.Repeat("é", 500), string(got))
	require.NoError(t, syscall.Mkfifo(path+".fifo", 0o600))
	writeTermination(path+".fifo", "does not block")
}
