// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/cleanstart-dev/cleanimg-init/probes/report"
)

func TestRedactVariables(t *testing.T) {
	tests := []struct {
		name, variable, text, want string
	}{
		{"password", "DB_PASSWORD=hunter22", "login with hunter22 refused", "login with *** refused"},
		{"lower case", "db_password=hunter22", "hunter22", "***"},
		{"its name stays", "DB_PASSWORD=hunter22", "DB_PASSWORD=hunter22 is wrong, DB_PASSWORD", "DB_PASSWORD=*** is wrong, DB_PASSWORD"},
		{"key", "TLS_KEY=abcdef", "xabcdefx", "x***x"},
		{"pass", "RABBITMQ_DEFAULT_PASS=hunter22", "hunter22", "***"},
		{"pwd", "DB_PWD=hunter22", "hunter22", "***"},
		{"creds", "smtp_creds=hunter22", "hunter22", "***"},
		{"the directory before", "OLDPWD=/srv/app", "in /srv/app", "in /srv/app"},
		{"dsn", "SENTRY_DSN=https://abc@sentry/1", "to https://abc@sentry/1", "to ***"},
		{"libpq's, redis's and mysql's", "MYSQL_PWD=hunter22", "hunter22", "***"},
		{"redis", "REDISCLI_AUTH=hunter22", "hunter22", "***"},
		{"an ordinary one", "APP_NAME=hunter22", "hunter22", "hunter22"},
		{"the working directory", "PWD=/srv/app", "in /srv/app", "in /srv/app"},
		{"too short", "DB_PASSWORD=abc", "abc", "abc"},
		{"empty", "DB_PASSWORD=", "abc", "abc"},
		{"not a variable", "DB_PASSWORD", "DB_PASSWORD", "DB_PASSWORD"},
		{"a switch", "TOKEN_REQUIRED=true", "it is true", "it is true"},
		{"where it is", "DB_PASSWORD_FILE=/run/secrets/db", "open /run/secrets/db: no such file", "open /run/secrets/db: no such file"},
		{"a key of several lines", "TLS_KEY=-----BEGIN-----\nMIIEpAIBAAKCAQEA\nshort\n-----END-----\n", "bad line MIIEpAIBAAKCAQEA, short", "bad line ***, short"},
		{"white space around it", "API_TOKEN= hunter22\n", "got hunter22.", "got ***."},
		{"quoted", `API_TOKEN=hun"ter\22`, `token "hun\"ter\\22"`, `token "***"`},
		{"escaped", "API_TOKEN=hun/ter 22", "GET /x?t=hun%2Fter%2022", "GET /x?t=***"},
		{"overlapping itself", "API_TOKEN=abab", "ababab!", "***!"},
		{"password of a URL", "DATABASE_URL=postgres://app:hunter22@db:5432/x", "user app, password hunter22, db:5432", "user app, password ***, db:5432"},
		{"escaped in a URL", "DATABASE_URL=postgres://app:hunter%2F22@db", "hunter/22 hunter%2F22", "*** ***"},
		{"not escaped as it should be", "DATABASE_URL=postgres://app:hun/te#r@22@db", "hun/te#r@22 and hun/te#r", "*** and ***"},
		{"with an @ later", "DATABASE_URL=postgres://app:hunter22@db/x?application_name=a@b", "hunter22", "***"},
		{"without a user", "REDIS_URL=redis://:hunter22@cache", "AUTH hunter22", "AUTH ***"},
		{"a URL inside", "JAVA_OPTS=-Xmx1g -Ddb=postgres://app:hunter22@db -Dx=y", "hunter22 -Xmx1g", "*** -Xmx1g"},
		{"a connection string", "PG=host=db password=hunter22 user=app", "hunter22 for app on db", "*** for app on db"},
		{"a quoted one", "PG=host=db password='hunter 22' user=app", "hunter 22 for app", "*** for app"},
		{"mysql's", "DB=app:hunter22@tcp(db:3306)/x", "hunter22 for app", "*** for app"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := report.NewRedactor([]string{tt.variable, "HOME=/root", "EMPTY="})
			assert.Equal(t, tt.want, r.String(tt.text))
			assert.Equal(t, tt.want, string(r.Bytes([]byte(tt.text))))
			assert.Equal(t, tt.want, r.String(r.String(tt.text)), "twice")
		})
	}
}

func TestRedactText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "10-wait ended after 3s", "10-wait ended after 3s"},
		{"url", "connect to postgres://u:p@db:5432/x?a=b: refused", "connect to postgres://u:***@db:5432/x?a=b: refused"},
		{"url without a user", "redis://:p@cache", "redis://:***@cache"},
		{"url without a password", "ssh://git@host/x redis://:@cache", "ssh://git@host/x redis://:@cache"},
		{"two urls", "a://u:p@h,b://u:q@h amqp://u:r@h", "a://u:***@h amqp://u:***@h"},
		{"odd characters", "x://u:a/b#c@d?e:f@db", "x://u:***@db"},
		{"quoted url", `"x://u:p@db" "a@b"`, `"x://u:***@db" "a@b"`},
		{"a port", "http://db:80/x and me@x", "http://db:80/x and me@x"},
		{"an address", "http://[::1]:80/a@b", "http://[::1]:80/a@b"},
		{"a scoped package", "https://registry/@a/b:1@2", "https://registry/@a/b:1@2"},
		{"connection string", "host=db password=p q=1", "host=db password=*** q=1"},
		{"with spaces", "host = db password = p q = 1", "host = db password = *** q = 1"},
		{"an empty one", "password= host=db", "password= host=db"},
		{"at the end", "password=", "password="},
		{"quotes", `password='it\'s p' host=db`, `password=*** host=db`},
		{"query", "GET /?user=u&password=p&x=1#y", "GET /?user=u&password=***&x=1#y"},
		{"semicolons", "Server=db;Password=p;Database=x", "Server=db;Password=***;Database=x"},
		{"token", "GET /?access_token=p&x=1", "GET /?access_token=***&x=1"},
		{"option", "--db-password=p --verbose", "--db-password=*** --verbose"},
		{"where it is", "redis://h/1#password-file=/run/pw&x=1, DB_PASSWORD_FILE=/run/db&password=p", "redis://h/1#password-file=/run/pw&x=1, DB_PASSWORD_FILE=/run/db&password=***"},
		{"no path", "?password_file=hunter22", "?password_file=***"},
		{"other keys", "foreign_key=id pwned=1", "foreign_key=id pwned=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, report.NewRedactor(nil).String(tt.text))
			assert.Equal(t, tt.want, new(report.Redactor).String(tt.text))
			assert.Equal(t, tt.want, (*report.Redactor)(nil).String(tt.text))
		})
	}
}

// A variable may be 128 KiB of URLs. All of their passwords are found, and what
// is remembered is not the square of that.
func TestRedactListOfURLs(t *testing.T) {
	var list strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&list, "redis://user:p%dword@host%[1]d:6379,", i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := report.NewRedactor([]string{"NODES=" + list.String(), "ODD=x://u:" + strings.Repeat("@", 100_000)})
	assert.Equal(t, "*** *** ***", r.String("p0word p700word p1499word"))
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<20))
}

func TestRedactOverlappingSecrets(t *testing.T) {
	r := report.NewRedactor([]string{"A_TOKEN=abcdef", "B_TOKEN=defghi", "C_TOKEN=abcdefghijkl", "D_TOKEN=cdef"})
	assert.Equal(t, "x***x", r.String("xabcdefghix"), "no end of the second is left")
	assert.Equal(t, "***", r.String("abcdefghijkl"))
}

func TestRedactorLearns(t *testing.T) {
	var none *report.Redactor
	none.Add([]string{"A_TOKEN=hunter22"}) // does nothing, and does not panic

	r := report.NewRedactor([]string{"A_TOKEN=first1"})
	assert.Equal(t, "*** second", r.String("first1 second"))
	r.Add([]string{"B_TOKEN=second"})
	assert.Equal(t, "*** ***", r.String("first1 second"))
}

func TestRedactorConcurrently(t *testing.T) {
	r := report.NewRedactor([]string{"A_TOKEN=hunter22"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				r.Add([]string{"B_TOKEN=hunter23"})
				assert.Equal(t, "*** ***", r.String("hunter22 hunter23"))
			}
		})
	}
	wg.Wait()
}

func TestBytesWithoutASecretAreNotCopied(t *testing.T) {
	b := []byte("nothing to hide")
	got := report.NewRedactor([]string{"A_TOKEN=hunter22"}).Bytes(b)
	assert.Same(t, &b[0], &got[0])
}

// FuzzRedact plants a secret in several places and looks for it afterwards.
func FuzzRedact(f *testing.F) {
	f.Add("hunter22", "login with ", " refused")
	f.Add("a/b#c@d?e:f", "x://u:", "@h")
	f.Add("aaaa", "aa", "password=")
	f.Add("'it\\'s", "password='", "=")
	f.Add("two\nlines of it", "\n", "lines of it")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if len(secret) < 4 || strings.Contains(secret, "*") {
			return
		}
		text := before + secret + after
		url := "postgres://app:" + secret + "@db:5432/x"
		for _, environ := range [][]string{
			{"DB_PASSWORD=" + secret},
			{"DATABASE_URL=" + url},
			{"OPTIONS=-a " + url + " -b"},
		} {
			if strings.HasPrefix(environ[0], "DB") && strings.Contains(" true false none null enabled disabled ", " "+strings.ToLower(secret)+" ") {
				continue
			}
			got := report.NewRedactor(environ).String(text)
			assert.NotContains(t, got, secret, "%q", environ)
		}

		// A URL or a connection string that no variable knows.
		if strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"'`<>", r) }) {
			return
		}
		var r *report.Redactor
		got := r.String("dial " + url + " failed")
		assert.True(t, strings.HasPrefix(got, "dial postgres://app:***"), "%q", got)
		got = r.String("host=db password=" + secret + " user=app")
		assert.True(t, strings.HasPrefix(got, "host=db password=***"), "%q", got)
	})
}
