// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// planted are secrets where programs keep them.
var planted = []string{"planted-env", "planted-url", "planted-arg", "planted-token", "planted-file", "planted-step", "planted-export", "planted-check"}

// endpoints are all that there are, and one that there is not.
var endpoints = []string{"/status", "/health/startup", "/health/live", "/health/ready", "/metrics", "/", "/none"}

// TestSecretsAppearNowhere: a hook prints what it knows and fails, so that its
// last lines are in the message and in the report, and a step fails over a
// variable. What the hook itself wrote to stderr is its own affair.
func TestSecretsAppearNowhere(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			said := []string{
				"password is planted-env", "connecting to postgres://app:planted-url@db:5432/app failed", "token planted-token refused", "from the file: planted-file",
				"url redis://:planted-arg@cache", "exported: planted-export",
			}
			in := Run(t, Options{
				Args: do("args", "--url=postgres://app:planted-arg@db/x"),
				Env: env("DB_PASSWORD=planted-env", "DATABASE_URL=postgres://app:planted-url@db:5432/app", "API_TOKEN=planted-token",
					"CLEANIMG_INIT_ENV_FILES=APP_SECRET", "APP_SECRET_FILE=/run/secret",
					"CLEANIMG_INIT_READINESS_CHECK=http://probe:planted-check@127.0.0.1:1/?token=planted-token",
					"CLEANIMG_INIT_LOG_LEVEL=debug", "CLEANIMG_INIT_LOG_FORMAT="+format, "CLEANIMG_INIT_REPORT_FILE=/tmp/report.json"),
				Files: []File{
					{Path: "/run/secret", Content: "planted-file\n"},
					Step("05-step.yaml", `run: [/no/such/program, "${DATABASE_URL}", "redis://:planted-arg@cache"]`, "onFailure: continue"),
					Step("06-env.yaml", runs("exit", "1"), "onFailure: continue", `env: {SIGNING_KEY: planted-step, DATABASE_URL: "mysql://app:planted-step@db"}`),
					Hook("07-export", "export REDIS_PASSWORD=planted-export"),
					Hook("10-a", "err "+strings.Join(said, "\nerr "), "touch /tmp/said", "exit 3"),
					StopHook("10-stop", "touch /tmp/stop", "await /tmp/end"),
				},
			})
			in.WaitFile("/tmp/stop")
			everything := map[string]string{"termination message": in.Message()}
			for _, path := range endpoints {
				_, everything[path], _ = in.Get(path)
			}
			in.touch("/tmp/end")
			assert.Equal(t, 3, in.Wait())
			everything["report"] = in.File("/tmp/report.json")
			everything["last message"] = in.Message()
			var log []string
			for _, line := range in.Stderr.Lines() {
				own := false
				for _, s := range said {
					own = own || line == s
				}
				if !own {
					log = append(log, line)
				}
			}
			everything["log"] = strings.Join(log, "\n")
			for where, text := range everything {
				for _, secret := range planted {
					assert.NotContains(t, text, secret, where)
				}
			}
			assert.Contains(t, everything["termination message"], "10-a")
			assert.Contains(t, everything["termination message"], "refused", "the last lines are there, without the secrets")
		})
	}
}

func TestSecretsInSettingsAppearNowhere(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: []string{"/no/such/command", "--password", "planted-arg"},
		Env:  env("CLEANIMG_INIT_UNKNOWN_TOKEN=planted-token", "DB_PASSWORD=planted-env"),
	})
	assert.Equal(t, 127, in.Wait())
	for _, secret := range planted {
		assert.NotContains(t, in.Stderr.String(), secret)
		assert.NotContains(t, in.Message(), secret)
	}
}

// TestSecretsInTheWrongPlaceAppearNowhere: values that were confused.
func TestSecretsInTheWrongPlaceAppearNowhere(t *testing.T) {
	t.Parallel()
	const url = "postgres://u:planted-url@h"
	for _, args := range [][]string{
		{"--probe", "live"},
		{"--probe", "live", "--kill-grace", "planted-env"},
		{"--probe", url},
		{"--check", "/bin/testprog"},
		{"--check", "--" + url},
		{"--install", "/tmp/bin", url},
		{"--", "/bin/testprog"},
	} {
		in := Run(t, Options{Args: args, Env: env("CLEANIMG_INIT_HTTP_LISTEN="+url, "CLEANIMG_INIT_STEP_TIMEOUTS="+url+":5s", "DB_PASSWORD=planted-env")})
		assert.Equal(t, 125, in.Wait(), "%v", args)
		assert.Contains(t, in.Stderr.String(), "***", "%v", args)
		for _, secret := range planted {
			assert.NotContains(t, in.Stderr.String()+in.Message(), secret, "%v", args)
		}
	}
}

// TestSecretsOfFilesInTheWrongPlace: they are known where nothing is run, too.
func TestSecretsOfFilesInTheWrongPlace(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"planted-file"}, {"--check", "planted-file"}} {
		in := Run(t, Options{
			Args: args, Env: env("CLEANIMG_INIT_ENV_FILES=DB_PASSWORD", "DB_PASSWORD_FILE=/run/secrets/db"),
			Files: []File{{Path: "/run/secrets/db", Content: "planted-file\n"}},
		})
		assert.Equal(t, 127, in.Wait())
		assert.NotContains(t, in.Stderr.String()+in.Message(), "planted-file", "%v", args)
	}
}

func TestSecretsOfARunningCommand(t *testing.T) {
	t.Parallel()
	in := Run(t, Options{
		Args: do("bg", "trap", "-quiet", "-write", "postgres://u:planted-url@h", ";", "trap", "-on", "USR1=3"),
		Env: env("DB_PASSWORD=planted-env", "CLEANIMG_INIT_LOG_LEVEL=debug", "CLEANIMG_INIT_KILL_GRACE=500ms", "CLEANIMG_INIT_GRACE_PERIOD=3s",
			"CLEANIMG_INIT_READINESS_CHECK=http://probe:planted-check@127.0.0.1:1/?token=planted-token#failure=1",
			"CLEANIMG_INIT_LIVENESS_CHECK=exec:/bin/testprog?arg=err&arg=planted-arg&arg=;&arg=exit&arg=1"),
	})
	in.WaitStdout("ready")
	in.eventually("the checks to fail", func() bool {
		_, metrics, _ := in.Get("/metrics")
		return strings.Contains(metrics, `check_passing{check="readiness",type="http"} 0`) && !strings.Contains(metrics, `check_runs_total{check="liveness",type="exec"} 0`)
	})
	for _, path := range endpoints {
		_, body, err := in.Get(path)
		require.NoError(t, err)
		for _, secret := range planted {
			assert.NotContains(t, body, secret, path)
		}
	}
	in.Signal(syscall.SIGTERM) // held out against, so that everything left is named
	assert.Equal(t, 137, in.Wait())
	for _, secret := range planted {
		assert.NotContains(t, in.Stderr.String(), secret)
		assert.NotContains(t, in.Message(), secret)
	}
}
