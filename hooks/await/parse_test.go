// SPDX-License-Identifier: Apache-2.0

package await

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/reaper"
)

func TestParseNames(t *testing.T) {
	t.Parallel()
	tests := []struct{ url, name string }{
		{"db.svc:5432", "tcp://db.svc:5432"},
		{"dns:53", "tcp://dns:53"},
		{"[::1]:80", "tcp://[::1]:80"},
		{"[fe80::1%eth0]:80", "tcp://[fe80::1%eth0]:80"},
		{"[fe80::1%25eth0]:80", "tcp://[fe80::1%eth0]:80"},
		{"tcp://[fe80::1%25eth0]:80", "tcp://[fe80::1%eth0]:80"},
		{"tcp://db:1", "tcp://db:1"},
		{"unix:///run/app.sock", "unix:///run/app.sock"},
		{"unix:/run/app.sock", "unix:///run/app.sock"},
		{"file:///tmp/ready#contains=x", "file:///tmp/ready"},
		{"dns://db.svc", "dns://db.svc"},
		{"dns:db.svc?type=SRV#count=3", "dns:db.svc#count=3"},
		{"dns://10.0.0.1/db.svc?type=A", "dns://10.0.0.1/db.svc"},
		{"exec:/bin/sh?arg=-c&arg=exit%200", "exec:///bin/sh"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			s, err := Parse(tt.url, nil, Schemes(new(reaper.Reaper)))
			require.NoError(t, err)
			assert.Equal(t, tt.name, s.String())
		})
	}
}

func TestParseMistakes(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct{ url, want string }{
		{"", "neither HOST:PORT nor a URL"},
		{"localhost", "neither HOST:PORT nor a URL"},
		{"db:http", "unknown scheme"},
		{"ftp://db/", `unknown scheme "ftp", this build has tcp`},
		{"tcp://db", "the port is missing"},
		{"tcp://:80", "the host is missing"},
		{"tcp://db:0", "between 1 and 65535"},
		{"tcp://db:70000", "between 1 and 65535"},
		{"tcp://db:80/path", "only HOST:PORT"},
		{"tcp://a:1,b:2", "only one host"},
		{"tcp://db:80#status=200", `unknown option "status": tcp has none`},
		{"unix://run/app.sock", "three slashes"},
		{"file://", "the path is missing"},
		{"dns://", "not a name"},
		{"dns://db?type=X", `unknown type "X"`},
		{"dns://db#count=x", `option "count" is "x" and not a number`},
		{"exec:", "not a program"},
		{"exec:" + missing, "not found"},
		{"exec:/bin/sh?argument=x", `unknown parameter "argument"`},
		{"file:///x#contains=%zz", "two hex digits"},
		{"file:///x%00", "a NUL byte"},
		{"unix:///run/app.sock%00x", "a NUL byte"},
		{"exec:/bin/true?arg=%00", "a NUL byte"},
		{"unix:///" + strings.Repeat("x", 107), "the path has 108 bytes, that of a socket can have 107"},
		{"file:///x#contains=a&contains=b", `option "contains" is there 2 times`},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.url, nil, Schemes(new(reaper.Reaper)))
			require.ErrorContains(t, err, tt.want)
			assert.True(t, strings.HasPrefix(err.Error(), "service "), "%v", err)
		})
	}
}

// Every way of spelling a URL wrongly keeps its password.
func TestParseShowsNoPassword(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"redis://:hunter22#x@cache", "redis://:hunter22/x@cache", "redis://:hunter22 x@cache", "redis://:hunter22%zz@cache", "redis://:hunter22?x@cache",
		"redis://hunter22", "redis://:hunter22", "postgres://app:hunter22", "postgres://app:hunter22@", "postgres://app:hunter22@db:x/", "postgress://app:hunter22@db",
		"postgres://app:hunter22@db/shop?sslmode=hunter22", "mysql://app:hunter22@db?x=1", "kafka://app:hunter22@b/x", "app:hunter22@db", "amqp://app:hunter22@b:0",
		"nats://hunter22@n:x", "mongodb://app:hunter22@a:x,b", "http://app:hunter22@api/#x", "redis://app:hunter22@cache#x=1", "tcp://app:hunter22@db:1", "grpc://app:hunter22@g:1",
		"postgres://app:p@hunter22/:#? %@db/shop#query=SELECT 1", "postgres://app:p@hunter22/w:rd@db/shop", "postgres://app:12/hunter22@db/shop", "postgres://app:12?hunter22@db/shop",
		"redis://:1/hunter22@cache", "amqp://app:12#hunter22@b", "http://app:12#hunter22@api/", "mongodb://app:1/hunter22@a,b/", "kafka://app:p@hunter22/x@b",
	} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			s, err := Parse(url, nil, Schemes(nil))
			if strings.HasPrefix(url, "redis://hunter22") && err == nil {
				return // that is a host
			}
			assert.NotContains(t, s.String(), "hunter22")
			if assert.Error(t, err) {
				assert.NotContains(t, err.Error(), "hunter22")
			}
		})
	}
}

func TestParseSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("from-file\r\n"), 0o600))
	tests := []struct {
		name, url string
		env       []string
		password  string
		err       string
	}{
		{"URL", "redis://:a%20b@cache", nil, "a b", ""},
		{"file", "redis://cache#password-file=" + file, nil, "from-file", ""},
		{"file over URL", "redis://:x@cache#password-file=" + file, nil, "from-file", ""},
		{"no file", "redis://cache#password-file=/nowhere", nil, "", "no such file"},
		{"variable", "redis://cache#password-env=A", []string{"A=b"}, "b", ""},
		{"file of a variable", "redis://cache#password-env=A", []string{"A_FILE=" + file}, "from-file", ""},
		{"no variable", "redis://cache#password-env=A", nil, "", "neither A nor A_FILE is set"},
		{"both", "redis://cache#password-env=A&password-file=" + file, nil, "", "exclude each other"},
		{"the client's variable", "redis://cache", []string{"C=d"}, "d", ""},
		{"URL over the client's variable", "redis://:x@cache", []string{"C=d"}, "x", ""},
		{"the client's variable as a file", "redis://cache", []string{"C_FILE=" + file}, "from-file", ""},
		{"both of the client's", "redis://cache", []string{"C=d", "C_FILE=" + file}, "", "C and C_FILE are both set"},
		{"an empty one is none", "redis://cache", []string{"C=", "D=e"}, "e", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			anything := Scheme{names: []string{"redis"}, options: passwordOptions}
			target, _, err := newTarget(tt.url, tt.env, []Scheme{anything})
			require.NoError(t, err)
			got, err := target.credentials("C", "D")
			if tt.err != "" {
				assert.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.password, got.password)
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, url := range []string{
		"db:5432", "postgres://u:p@a:1,b:2/d?sslmode=disable#table=x", "redis://:p@h/1#password-file=/x", "kafka://[::1]:9092,b#brokers=2", "dns:x?type=A",
		"exec:/bin/true?arg=x", "http://h/#status=2xx&header=a:b", "mongodb://a,b/?tls=true", "unix:@x", "amqp://h/%2f", "nats://t@h", "grpc://h:1/s",
	} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if strings.Contains(url, "file=") || strings.Contains(url, "ca=") || strings.Contains(url, "cert") || strings.Contains(url, "passfile") || strings.Contains(url, "service") {
			return // it would read the file
		}
		s, err := Parse(url, nil, Schemes(new(reaper.Reaper)))
		if err == nil {
			assert.NotEmpty(t, s.String())
			assert.NotContains(t, s.String(), "\n")
		}
	})
}
