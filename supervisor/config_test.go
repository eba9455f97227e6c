// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/cleanstart-dev/cleanimg-init/reaper/cgroup"
)

// parse is ParseConfig with variables given without the prefix, and a command.
func parse(t *testing.T, variables map[string]string, options map[string]string) (Config, []string, error) {
	t.Helper()
	var environ []string
	for name, value := range variables {
		environ = append(environ, Prefix+"_"+name+"="+value)
	}
	return ParseConfig(environ, options, Flags{}, []string{"true"})
}

func TestDefaults(t *testing.T) {
	c, warnings, err := parse(t, nil, nil)
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.Equal(t, Dirs{"/etc/cleanimg-init/hooks.d"}, c.HooksDir)
	assert.Equal(t, Dirs{"/etc/cleanimg-init/stop.d"}, c.StopHooksDir)
	assert.Equal(t, 10*time.Minute, c.StepTimeout.Duration)
	assert.Equal(t, 5*time.Second, c.KillGrace.Duration)
	assert.Zero(t, c.GracePeriod.Duration)
	assert.Equal(t, Signals{unix.SIGTERM, unix.SIGINT}, c.StopSignals)
	assert.Equal(t, TargetMain, c.SignalTarget)
	assert.Equal(t, Address(":10101"), c.HTTPListen)
	assert.Equal(t, AbsolutePath("/dev/termination-log"), c.TerminationLog)
	assert.True(t, c.HTTP())
	assert.False(t, c.Named("HOOKS_DIR"))
}

// The names that help, warnings and options use must be those that envconfig
// reads.
func TestNamesAreThoseOfEnvconfig(t *testing.T) {
	var keys bytes.Buffer
	require.NoError(t, envconfig.Usagef(Prefix, &Config{}, &keys, "{{range .}}{{usage_key .}}\n{{end}}"))
	var ours []string
	for _, v := range Variables() {
		ours = append(ours, Prefix+"_"+v.Name)
		assert.NotEmpty(t, v.Desc, "%s has no text for the help", v.Name)
		assert.False(t, strings.HasSuffix(v.Name, "_PORT") || strings.Contains(v.Name, "_SERVICE_"), "%s is a name that Kubernetes injects", v.Name)
	}
	assert.Equal(t, strings.Fields(keys.String()), ours)
	assert.Contains(t, ours, "CLEANIMG_INIT_HTTP_LISTEN")
}

func TestValues(t *testing.T) {
	tests := []struct {
		name, value string
		get         func(Config) any
		want        any
	}{
		{"STEP_TIMEOUT", "90", func(c Config) any { return c.StepTimeout.Duration }, 90 * time.Second},
		{"STEP_TIMEOUT", "250ms", func(c Config) any { return c.StepTimeout.Duration }, 250 * time.Millisecond},
		{"STEP_TIMEOUT", "1.5", func(c Config) any { return c.StepTimeout.Duration }, 1500 * time.Millisecond},
		{"STEP_TIMEOUT", "0", func(c Config) any { return c.StepTimeout.Duration }, time.Duration(0)},
		{"STEP_TIMEOUT", "", func(c Config) any { return c.StepTimeout.Duration }, 10 * time.Minute},
		{"HOOKS_DIR", "/a:/b", func(c Config) any { return c.HooksDir }, Dirs{"/a", "/b"}},
		{"HOOKS_SKIP", "*", func(c Config) any { return c.HooksSkip }, Names{"*"}},
		{"STEP_TIMEOUTS", "20-migrate:30m, 30-a:b:5", func(c Config) any { return c.StepTimeouts }, StepTimeouts{"20-migrate": 30 * time.Minute, "30-a:b": 5 * time.Second}},
		{"STOP_SIGNALS", "SIGQUIT,15,rtmin+3", func(c Config) any { return c.StopSignals }, Signals{unix.SIGQUIT, unix.SIGTERM, 37}},
		{"SIGNAL_REWRITE", "TERM:QUIT,USR1:", func(c Config) any { return c.SignalRewrite }, Rewrite{unix.SIGTERM: unix.SIGQUIT, unix.SIGUSR1: 0}},
		{"SIGNAL_TARGET", "tree", func(c Config) any { return c.SignalTarget }, TargetTree},
		{"LOG_LEVEL", "debug", func(c Config) any { return c.LogLevel.String() }, "DEBUG"},
		{"HTTP_LISTEN", "off", func(c Config) any { return c.HTTP() }, false},
		{"TIMEOUT_MODE", "scale", func(c Config) any { return c.timeoutRule().Mode }, cgroup.Scale},
		{"TIMEOUT_CPUS", "0.5", func(c Config) any { return c.timeoutRule().CPUs }, 0.5},
		{"TIMEOUT_STRETCH", "2.5", func(c Config) any { return c.timeoutRule().Stretch }, 2.5},
		{"TIMEOUT_MODE", "", func(c Config) any { return c.timeoutRule() }, cgroup.Rule{Mode: cgroup.Throttle, CPUs: 1, Stretch: 10}},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			c, _, err := parse(t, map[string]string{tt.name: tt.value}, nil)
			require.NoError(t, err)
			assert.Equal(t, tt.want, tt.get(c))
		})
	}
}

func TestBadValuesNameVariableValueAndWhatIsAccepted(t *testing.T) {
	tests := []struct{ name, value, accepted string }{
		{"STEP_TIMEOUT", "soon", "accepted are durations"},
		{"STEP_TIMEOUT", "-1s", "accepted are durations"},
		{"HOOKS_PARALLEL", "0", "want a number from 1"},
		{"HOOKS_DIR", "hooks.d", "absolute path"},
		{"ENV_FILES", "[", "not a name or a pattern"},
		{"STEP_TIMEOUTS", "20-migrate", "NAME:DURATION"},
		{"STEP_TIMEOUTS", "a:1,a:2", "twice"},
		{"STOP_SIGNALS", "TREM", "is not a signal"},
		{"STOP_SIGNALS", "KILL", "can't be received"},
		{"STOP_SIGNALS", "CHLD", "can't be received"},
		{"SIGNAL_TARGET", "all", "want one of [main group tree]"},
		{"SIGNAL_REWRITE", "TERM", "FROM:TO"},
		{"SIGNAL_REWRITE", "CHLD:TERM", "never forwarded"},
		{"SIGNAL_REWRITE", "TERM:RTMAX+1", "is not a signal"},
		{"HTTP_LISTEN", "8080", ":PORT or IP:PORT"},
		{"HTTP_LISTEN", "myhost:80", ":PORT or IP:PORT"},
		{"STEP_TIMEOUT", "5m30", "accepted are durations"},
		{"HTTP_LISTEN", ":0", "from 1 to 65535"},
		{"HTTP_LISTEN", ":http", "from 1 to 65535"},
		{"MODE", "fork", "want one of [supervise exec]"},
		{"HOOK_OUTPUT", "none", "want one of"},
		{"LOG_FORMAT", "xml", "want one of"},
		{"LOG_LEVEL", "loud", "debug, info, warn or error"},
		{"LOG_LEVEL", "info+2", "debug, info, warn or error"},
		{"TERMINATION_LOG", "log", "absolute path"},
		{"TIMEOUT_MODE", "cpu", "want one of [throttle scale wall]"},
		{"TIMEOUT_CPUS", "0", "a number of CPUs from 0.01 to 1024"},
		{"TIMEOUT_CPUS", "NaN", "a number of CPUs from 0.01 to 1024"},
		{"TIMEOUT_STRETCH", "0.5", "a factor from 1 to 100"},
		{"TIMEOUT_STRETCH", "10x", "a factor from 1 to 100"},
	}
	for _, tt := range tests {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			_, _, err := parse(t, map[string]string{tt.name: tt.value}, nil)
			require.Error(t, err)
			assert.Contains(t, err.Error(), "CLEANIMG_INIT_"+tt.name)
			assert.Contains(t, err.Error(), tt.value)
			assert.Contains(t, err.Error(), tt.accepted)
		})
	}
}

func TestAllBadValuesAtOnce(t *testing.T) {
	_, _, err := parse(t, map[string]string{"STEP_TIMEOUT": "soon", "MODE": "fork"}, map[string]string{"KILL_GRACE": "never"})
	require.Error(t, err)
	assert.Len(t, strings.Split(err.Error(), "\n"), 3)
	assert.Contains(t, err.Error(), `option --kill-grace "never"`, "named the way it was given")
}

func TestSettingsThatContradict(t *testing.T) {
	tests := []struct {
		name      string
		variables map[string]string
		want      []string
	}{
		{"a drain delay as long as the grace period", map[string]string{"GRACE_PERIOD": "20s", "DRAIN_DELAY": "15s"}, []string{"DRAIN_DELAY=15s", "GRACE_PERIOD=20s", "less than 15s"}},
		{"a stop signal that is dropped", map[string]string{"SIGNAL_REWRITE": "TERM:"}, []string{"SIGNAL_REWRITE", "TERM", "STOP_SIGNALS"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := parse(t, tt.variables, nil)
			require.Error(t, err)
			for _, want := range tt.want {
				assert.Contains(t, err.Error(), want)
			}
		})
	}
}

func TestOptionWinsOverVariable(t *testing.T) {
	c, _, err := parse(t, map[string]string{"KILL_GRACE": "1s", "MODE": "bad"}, map[string]string{"KILL_GRACE": "2s", "MODE": "supervise"})
	require.NoError(t, err)
	assert.Equal(t, 2*time.Second, c.KillGrace.Duration)
}

func TestUnknownVariablesWarn(t *testing.T) {
	_, warnings, err := parse(t, map[string]string{
		"STEP_TIMOUT": "1s", "PORT": "tcp://10.0.0.1:80", "PORT_80_TCP": "tcp://10.0.0.1:80", "SERVICE_HOST": "10.0.0.1",
		"STEP": "20-migrate", "CPU_LIMIT": "0.25",
	}, nil)
	require.NoError(t, err)
	assert.Equal(t, []string{"CLEANIMG_INIT_STEP_TIMOUT"}, warnings)
}

func TestVariablesWithoutThePrefixDoNothing(t *testing.T) {
	for _, v := range Variables() {
		t.Setenv(v.Name, "nonsense")
	}
	t.Setenv("PORT", "1")
	c, warnings, err := ParseConfig(os.Environ(), nil, Flags{}, []string{"true"})
	require.NoError(t, err)
	assert.Empty(t, warnings)
	assert.Equal(t, Address(":10101"), c.HTTPListen)
}

func TestInitContainersHaveNoProbesUnlessAsked(t *testing.T) {
	c, _, err := ParseConfig(nil, nil, Flags{}, nil)
	require.NoError(t, err)
	assert.False(t, c.HTTP())
	c, _, err = ParseConfig([]string{"CLEANIMG_INIT_HTTP_LISTEN=:1"}, nil, Flags{}, nil)
	require.NoError(t, err)
	assert.True(t, c.HTTP())
}

func TestReserveOfTheGracePeriod(t *testing.T) {
	for grace, want := range map[time.Duration]time.Duration{
		8 * time.Second: 2 * time.Second, 20 * time.Second: 5 * time.Second, time.Hour: 5 * time.Second,
	} {
		c := Config{GracePeriod: Duration{grace}}
		assert.Equal(t, want, c.reserve(), "grace period %v", grace)
	}
}

func TestSignalNames(t *testing.T) {
	for sig := syscall.Signal(1); sig <= rtMax; sig++ {
		if sig == 32 || sig == 33 {
			continue // libc's own
		}
		parsed, err := ParseSignal(SignalName(sig))
		require.NoError(t, err, "signal %d", sig)
		assert.Equal(t, sig, parsed, SignalName(sig))
	}
	for _, bad := range []string{"", "0", "65", "-1", "TERM QUIT", "RTMIN-1", "RTMAX+1", "SIG"} {
		_, err := ParseSignal(bad)
		assert.Error(t, err, "%q", bad)
	}
}
