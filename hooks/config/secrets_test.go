// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestVariablesFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "pw"), "s3cret\n\n")
	f := setUp(t, map[string]string{
		"a.conf":   "${DB_PASSWORD}|${FROM_SECRET}|${TLS_KEY}|${EMPTY}",
		"b.tmpl":   `{{ .Env.DB_PASSWORD }}|{{ env "DB_PASSWORD" }}|{{ env "EMPTY" }}`,
		"log.conf": "${LOG:-info} to ${LOG_FILE}",
		"word":     "set DB_PASSWORD or DB_PASSWORD_FILE",
	})
	f.Environ = []string{"DB_PASSWORD_FILE=" + filepath.Join(dir, "pw"), "EMPTY=", "EMPTY_FILE=" + filepath.Join(dir, "pw"), "LOG_FILE=/var/log/x", "FROM_SECRET=environment", "OTHER_FILE=/nowhere"}
	f.secrets(map[string]string{"FROM_SECRET": "secret", "tls.key": "PEM"})
	assert.Equal(t, "s3cret\n|secret|PEM|s3cret\n", f.content("a.conf"), "one newline is removed; a secret wins over a variable")
	assert.Equal(t, "s3cret\n|s3cret\n|s3cret\n", f.content("b"))
	assert.Equal(t, "info to /var/log/x", f.content("log.conf"), "LOG_FILE is the template's own business")
}

func TestVariablesFromFilesProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "pw"), "s3cret")
	f := setUp(t, map[string]string{
		"a.conf": "${BOTH}\n${UNREADABLE:-default}\n${DIRECTORY}",
		"b.tmpl": `{{ .Env.BOTH | default "x" }}`,
	})
	f.Environ = []string{"BOTH=value", "BOTH_FILE=" + filepath.Join(dir, "pw"), "UNREADABLE_FILE=" + dir + "/no", "DIRECTORY_FILE=" + dir}
	problems := f.fails()
	assert.Equal(t, []string{
		"a.conf:1: BOTH and BOTH_FILE are both set: remove one of them",
		"a.conf:2: UNREADABLE_FILE: " + dir + "/no: no such file or directory",
		"a.conf:3: DIRECTORY_FILE: " + dir + ": not a regular file",
		"b.tmpl:1: BOTH and BOTH_FILE are both set: remove one of them",
	}, problems)
}

// TestSecretsAreFollowed: a file is private when a secret went in, by whatever
// way, and only then.
func TestSecretsAreFollowed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in     string
		secret bool
	}{
		"out.conf/a variable called like one":  {"${DB_PASSWORD}", true},
		"out.conf/an URL with a password":      {"${URL}", true},
		"out.conf/a plain variable":            {"${PLAIN}", false},
		"out.conf/a default":                   {"${NO_PASSWORD:-none}", false},
		"out.conf/whether there is one":        {"${DB_PASSWORD:+auth = on}", false},
		"out.conf/the same text":               {"hunter22", false},
		"out.conf/a file":                      {"${FROM}", true},
		"out.conf/a secret file":               {"${api_key}", true},
		"out.tmpl/a secret":                    {"{{ .Secrets.api_key }}", true},
		"out.tmpl/encoded":                     {"{{ .Secrets.api_key | b64enc }}", true},
		"out.tmpl/hashed":                      {"{{ .Values.api_key | sha256sum }}", true},
		"out.tmpl/cut":                         {"{{ .Secrets.api_key | trunc 2 }}", true},
		"out.tmpl/by a way around":             {`{{ $x := . }}{{ range $k, $v := index $x "Secrets" }}{{ $v }}{{ end }}`, true},
		"out.tmpl/by range over .Env":          {"{{ range .Env }}{{ . }}{{ end }}", true},
		"out.tmpl/a comparison that fails":     {`{{ if eq .Secrets.api_key "x" }}a{{ end }}`, false},
		"out.tmpl/a comparison that tells":     {`{{ if eq .Secrets.api_key "k-1234" }}a{{ end }}`, true},
		"out.tmpl/one that has to be a number": {"{{ .Secrets.number | int | add 1 }}", true},
		"out.tmpl/one that is JSON":            {"{{ (.Secrets.json | fromJson).user }}", true},
		"out.tmpl/a variable that is a value":  {"{{ .Values.db.password }}", true},
		"out.tmpl/a key of values.yaml":        {"{{ .Values.auth.token }}", true},
		"out.tmpl/all of the values":           {"{{ .Values | toJson }}", true},
		"out.tmpl/a plain value":               {"{{ .Values.auth.tokenLifetime }} {{ .Env.PLAIN }}", false},
		"out.tmpl/whether there is one":        {`{{ hasKey .Secrets "api_key" }}{{ if .Secrets.api_key }}x{{ end }}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, _, _ := strings.Cut(name, "/")
			f := setUp(t, map[string]string{file: tt.in, "values.yaml": "auth: {token: abc, tokenLifetime: 60}"})
			writeFile(t, filepath.Join(f.OutputDir, "../from"), "from-file")
			f.Environ = []string{"DB_PASSWORD=hunter22", "URL=redis://:pw@host", "PLAIN=hunter22x", "FROM_FILE=" + filepath.Join(f.OutputDir, "../from"), "GENERATE_CONFIG_VALUE_DB__PASSWORD=12345"}
			f.secrets(map[string]string{"api_key": "k-1234", "number": "41", "json": `{"user": "me"}`})
			assert.Equal(t, tt.secret, f.render().files[0].secret)
		})
	}
}

func TestModesOfSecrets(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"plain": "x", "secret": "${A_TOKEN}", "open": "${A_TOKEN}", "shared/secret": "${A_TOKEN}", "conf.d/x.conf": "y"})
	f.Environ = []string{"A_TOKEN=abcdef"}
	require.NoError(t, os.MkdirAll(filepath.Join(f.OutputDir, "shared"), 0o755))
	require.NoError(t, os.Chmod(filepath.Join(f.OutputDir, "shared"), 0o2775|os.ModeSetgid))
	for _, text := range []string{"open=0644", "conf.d/*=0600", "*.nothing=0644"} {
		m, err := ParseMode(text)
		require.NoError(t, err)
		f.Modes = append(f.Modes, m)
	}
	f.commit()
	for name, want := range map[string]os.FileMode{"plain": 0o644, "secret": 0o600, "open": 0o644, "shared/secret": 0o640, "conf.d/x.conf": 0o600} {
		assert.Equal(t, want, f.mode(name), name)
	}
	assert.Contains(t, f.log.String(), "every user may read a file with secrets, as its mode asks for\" file=open")
	assert.Contains(t, f.log.String(), "a mode is for no file\" glob=*.nothing")

	// A directory that is not there yet takes after the one above it.
	f.OutputDir = filepath.Join(f.OutputDir, "shared", "new")
	f.commit()
	assert.EqualValues(t, 0o640, f.mode("secret"))
	f.OutputDir = filepath.Join(f.OutputDir, "..", "..")

	// A secret that goes in later makes the file private.
	f.templates(map[string]string{"plain": "x ${A_TOKEN}"})
	f.commit()
	assert.EqualValues(t, 0o600, f.mode("plain"))
}

func TestParseMode(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Mode{
		"*.sh=0755":         {"*.sh", 0o755, owner{-1, -1}},
		"a=b/c=640:1:2":     {"a=b/c", 0o640, owner{1, 2}},
		"*=0600::65532":     {"*", 0o600, owner{-1, 65532}},
		"x=0600:65532":      {"x", 0o600, owner{65532, -1}},
		"[a-c].conf=0400:1": {"[a-c].conf", 0o400, owner{1, -1}},
	} {
		got, err := ParseMode(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "0644", "=0644", "x=", "x=9", "x=888", "x=4755", "x=0644:root", "x=0644:1:x", "[=0644", "x=rw", "x=0644:-1"} {
		_, err := ParseMode(text)
		assert.ErrorContains(t, err, "accepted are GLOB=0640", text)
	}
}

// TestDiffShowsNoSecret: neither the new one, however it is written, nor the
// old one that is replaced.
func TestDiffShowsNoSecret(t *testing.T) {
	t.Parallel()
	const pem = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
	f := setUp(t, map[string]string{
		"app.yaml.tmpl": "host: {{ .Values.host }}\npassword: {{ .Secrets.password | quote }}\nencoded: {{ .Secrets.password | b64enc }}\nurl: \"pg://u:{{ .Secrets.password }}@h/db\"\nshort: {{ .Secrets.pin }}\nlast: 1\n",
		"key.pem":       "${TLS_KEY}",
		"plain.conf":    "a = ${A}\n",
		"same":          "same\n",
	})
	f.secrets(map[string]string{"password": "new-secret-1", "pin": "42", "tls.key": pem})
	f.Environ = []string{"A=1", "GENERATE_CONFIG_VALUE_HOST=new"}
	for name, content := range map[string]string{
		"app.yaml":   "host: old\npassword: \"old-secret-9\"\nencoded: " + base64.StdEncoding.EncodeToString([]byte("old-secret-9")) + "\nurl: \"pg://u:old-secret-9@h/db\"\nshort: 17\nremoved: old-secret-9\nlast: 1\n",
		"key.pem":    strings.ReplaceAll(pem, "MII", "OLD"),
		"plain.conf": "a = 0\npassword = old-secret-9\n",
		"same":       "same\n",
	} {
		writeFile(t, filepath.Join(f.OutputDir, name), content)
	}
	text, different := f.diff()
	assert.True(t, different)
	for _, secret := range []string{"secret-", "bmV3", "b2xk", "42", "17", "MIIE", "OLDE", "AQEF"} {
		assert.NotContains(t, text, secret)
	}
	for _, want := range []string{
		"mode of app.yaml: 0644 becomes 0600\n--- a/app.yaml\n+++ b/app.yaml\n@@ -1,7 +1,6 @@\n",
		"-host: ***\n", "+host: new\n", "-password: \"***\"\n", "+password: \"***\"\n", "+encoded: ***\n", "+url: \"pg://u:***@h/db\"\n", "+short: ***\n", " last: 1\n",
		"-a = 0\n-password = ***\n+a = 1\n",
	} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "same")
	assert.Equal(t, "old", f.read("app.yaml")[6:9], "nothing is written")

	f.commit()
	text, different = f.diff()
	assert.False(t, different)
	assert.Empty(t, text)
}

func TestDiffOfNewAndBinaryFiles(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{"new": "a\nb", "bin": "\x00\x01"})
	text, different := f.diff()
	assert.True(t, different)
	assert.Contains(t, text, "new file new, mode 0644\n--- /dev/null\n+++ b/new\n@@ -1,0 +1,2 @@\n+a\n+b\n\\ No newline at end of file\n")
	assert.Contains(t, text, "new file bin, mode 0644\nbinary files /dev/null and b/bin differ\n")
}

// TestProblemsShowNoSecret: parsers and schemas like to show what they do not
// like.
func TestProblemsShowNoSecret(t *testing.T) {
	t.Parallel()
	f := setUp(t, map[string]string{
		"a.json.tmpl":        `{"port": {{ .Secrets.pw | quote }}, "encoded": {{ .Secrets.pw | b64enc | quote }}}`,
		"a.json.schema.json": `{"properties": {"port": {"pattern": "^[0-9]+$"}, "encoded": {"enum": ["x"], "pattern": "^x$"}}}`,
		"b.yaml":             "pw: ${PW}\n",
		"c.tmpl":             `{{ fail .Secrets.pw }}`,
		"d.tmpl":             `{{ .Secrets.pw | int }} {{ .Secrets.pw | b64dec }}`,
	})
	f.secrets(map[string]string{"pw": "s3cret-value"})
	f.Environ = []string{"PW=[s3cret-value"}
	problems := strings.Join(f.fails(), "\n")
	assert.NotContains(t, problems, "s3cret")
	assert.NotContains(t, problems, base64.StdEncoding.EncodeToString([]byte("s3cret-value")))
	for _, want := range []string{"a.json.tmpl:1: a.json would not be valid: its line 1: port:", "does not match pattern", "c.tmpl:1: ***", "d.tmpl:1: a text that is not a number"} {
		assert.Contains(t, problems, want)
	}
}

// FuzzMask: whatever two secrets there are, neither is in what is shown.
func FuzzMask(f *testing.F) {
	for _, seed := range []string{"hunter22", "a b c d", "-----BEGIN\nx\n", `q"uo'te`, "ünïcödé", "12345678", "a/b:c@d=e", "!!!!!!!!"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if len(secret) < 8 || len(secret) > 100 || strings.ContainsAny(secret, "\x00\r") || strings.TrimSpace(secret) == "" {
			return
		}
		other := swap(secret)
		if strings.TrimSpace(other) == other && len(other) > 0 {
			require.NotEqual(t, secret, other)
		}
		content := file{name: "x", content: []byte("key: \"" + secret + "\"\n"), blind: []byte("key: \"" + other + "\"\n"), secret: true, mode: 0o600}
		o := Output{files: []file{content}, options: Options{OutputDir: t.TempDir(), Redact: report.NewRedactor(nil)}}
		var shown strings.Builder
		_, err := o.Diff(&shown)
		require.NoError(t, err)
		for line := range strings.Lines(secret) {
			if line = strings.TrimSpace(line); len(line) >= 8 && strings.Trim(line, "x") != "" {
				assert.NotContains(t, shown.String(), line)
			}
		}
	})
}
