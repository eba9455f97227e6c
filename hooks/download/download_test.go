// SPDX-License-Identifier: Apache-2.0

package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// content is bytes that no compression or repetition hides a mistake in.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func sumOf(b []byte) Sum {
	s := sha256.Sum256(b)
	return Sum{SHA256, hex.EncodeToString(s[:])}
}

var modified = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// A server gives out data; each request goes to the next of its tricks, and
// when there are none left it behaves well.
type server struct {
	*httptest.Server
	data   []byte
	etag   string
	dated  bool
	tricks []func(w http.ResponseWriter, r *http.Request, data []byte)

	mu       sync.Mutex
	requests []*http.Request
}

func serve(t *testing.T, s *server) *server {
	t.Helper()
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	if n < len(s.tricks) && s.tricks[n] != nil {
		s.tricks[n](w, r, s.data)
		return
	}
	when := time.Time{}
	if s.etag != "" {
		w.Header().Set("ETag", s.etag)
	}
	if s.dated {
		when = modified
	}
	http.ServeContent(w, r, "file", when, bytes.NewReader(s.data))
}

func (s *server) asked() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// cut sends the head and n bytes, and hangs up.
func cut(n int, header ...string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, data []byte) {
		from := 0
		if span, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			from, _ = strconv.Atoi(strings.TrimSuffix(span, "-"))
		}
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(data[from:min(from+n, len(data))])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func answer(code int, header ...string) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// fetchOne fetches s into a new directory.
func fetchOne(t *testing.T, f File, o Options) (string, error) {
	t.Helper()
	if f.Output == "" {
		f.Output = filepath.Join(t.TempDir(), "dir", "out")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return f.Output, Run(ctx, []File{f}, o)
}

// only asserts that nothing but these names is in a directory.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	assert.ElementsMatch(t, names, found)
}

func TestFetch(t *testing.T) {
	t.Parallel()
	data := content(700_000)
	long := sha512.Sum512(data)
	tests := []struct {
		name string
		file File
		srv  *server
		gets int
	}{
		{name: "plain", gets: 1},
		{name: "with a sum", file: File{Sum: sumOf(data)}, gets: 1},
		{name: "with a long sum", file: File{Sum: Sum{SHA512, hex.EncodeToString(long[:])}}, gets: 1},
		{name: "cut three times", file: File{Sum: sumOf(data)}, srv: &server{tricks: tricks(cut(1000), cut(300_000), cut(0))}, gets: 4},
		{name: "cut, with a tag instead of a sum", srv: &server{etag: `"v1"`, tricks: tricks(cut(1000, "ETag", `"v1"`))}, gets: 2},
		{name: "cut, with a date instead of a sum", srv: &server{dated: true, tricks: tricks(cut(1000, "Last-Modified", modified.Format(http.TimeFormat)))}, gets: 2},
		{name: "cut, with nothing to tell versions by", srv: &server{tricks: tricks(cut(1000))}, gets: 2},
		{name: "another version after a cut", srv: &server{etag: `"v2"`, tricks: tricks(cut(1000, "ETag", `"v1"`))}, gets: 2},
		{name: "a server that ignores If-Range", srv: &server{etag: `"v2"`, tricks: tricks(cut(1000, "ETag", `"v1"`), cut(500, "ETag", `"v2"`))}, gets: 3},
		{name: "a range that is none", srv: &server{etag: `"v1"`, tricks: tricks(cut(1000, "ETag", `"v1"`), answer(206, "Content-Range", "bytes 5-9/10"))}, gets: 3},
		{name: "no range any more", file: File{Sum: sumOf(data)}, srv: &server{tricks: tricks(cut(1000), answer(416))}, gets: 3},
		{name: "busy", srv: &server{tricks: tricks(answer(503), answer(429, "Retry-After", "0"), answer(500))}, gets: 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.srv
			if s == nil {
				s = &server{}
			}
			s.data = data
			serve(t, s)
			f := tt.file
			f.URL = s.URL + "/m.bin"
			out, err := fetchOne(t, f, Options{})
			require.NoError(t, err)
			got, err := os.ReadFile(out)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(data, got), "%d bytes", len(got))
			assert.Len(t, s.asked(), tt.gets)
			only(t, filepath.Dir(out), "out")
		})
	}
}

func tricks(all ...func(http.ResponseWriter, *http.Request, []byte)) []func(http.ResponseWriter, *http.Request, []byte) {
	return all
}

func TestWhatCannotBeFetched(t *testing.T) {
	t.Parallel()
	data := content(100_000)
	tests := []struct {
		name   string
		file   File
		o      Options
		tricks []func(http.ResponseWriter, *http.Request, []byte)
		want   []string
		gets   int
		kept   bool // what is there stays for another run
	}{
		{name: "not there", tricks: tricks(answer(404)), want: []string{"404 Not Found"}, gets: 1},
		{name: "not allowed", tricks: tricks(answer(403)), want: []string{"403 Forbidden"}, gets: 1},
		{name: "wrong sum", file: File{Sum: sumOf([]byte("x"))}, want: []string{"wrong content", sumOf(data).Hex, sumOf([]byte("x")).Hex}, gets: 1},
		{name: "wrong sum after a cut", file: File{Sum: sumOf([]byte("x"))}, tricks: tricks(cut(5000)), want: []string{"wrong content"}, gets: 3},
		{name: "too large, said before", o: Options{MaxSize: 99_999}, want: []string{"100000 bytes", "99999"}, gets: 1},
		{
			name: "too large, found out", o: Options{MaxSize: 50_000}, want: []string{"more than the 50000 bytes"}, gets: 1,
			tricks: tricks(func(w http.ResponseWriter, _ *http.Request, data []byte) {
				w.(http.Flusher).Flush() // so the length is not known
				_, _ = w.Write(data)
			}),
		},
		{name: "encoded all the same", tricks: tricks(answer(200, "Content-Encoding", "gzip")), want: []string{`encoded ("gzip")`}, gets: 1},
		{name: "always cut", o: Options{Tries: 3}, file: File{Sum: sumOf(data)}, tricks: tricks(cut(10), cut(0), cut(0), cut(0)), want: []string{"given up after 3 tries", "10 of 100000"}, gets: 3, kept: true},
		{name: "always cut, without a sum", o: Options{Tries: 2}, tricks: tricks(cut(10), cut(0), cut(0)), want: []string{"given up after 2 tries"}, gets: 2},
		{name: "no archive", file: File{Unpack: true}, want: []string{"it is no archive that we know"}, gets: 1},
		{name: "redirected round", tricks: tricks(many(12, answer(302, "Location", "/again"))...), want: []string{"more than 10 redirects"}, gets: 11},
		{name: "redirected to a file", tricks: tricks(answer(302, "Location", "file:///etc/passwd")), want: []string{"redirected to file:///etc/passwd"}, gets: 1},
		{
			name: "stalled", o: Options{Tries: 2, Stall: 50 * time.Millisecond}, want: []string{"no byte for 50ms"}, gets: 2,
			tricks: many(2, func(_ http.ResponseWriter, r *http.Request, _ []byte) { <-r.Context().Done() }),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: data, tricks: tt.tricks})
			f := tt.file
			f.URL = s.URL + "/m.bin?signature=hunter22"
			var log bytes.Buffer
			tt.o.Log = slog.New(slog.NewTextHandler(&log, nil))
			out, err := fetchOne(t, f, tt.o)
			require.ErrorContains(t, err, "fetch "+out+" from "+s.URL+"/m.bin?…: ")
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error()+log.String(), "hunter22")
			assert.Len(t, s.asked(), tt.gets)
			if tt.kept {
				only(t, filepath.Dir(out), ".out.partial")
			} else {
				only(t, filepath.Dir(out))
			}
		})
	}
}

func many(n int, trick func(http.ResponseWriter, *http.Request, []byte)) (all []func(http.ResponseWriter, *http.Request, []byte)) {
	for range n {
		all = append(all, trick)
	}
	return all
}

func TestASecondRunDoesNothing(t *testing.T) {
	t.Parallel()
	data := content(50_000)
	for name, tt := range map[string]struct {
		sum  Sum
		gets int
	}{
		"known by its sum":           {sumOf(data), 1},
		"known by its date and size": {Sum{}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: data, dated: true})
			f := File{URL: s.URL + "/m.bin", Sum: tt.sum, Mode: 0o640}
			out, err := fetchOne(t, f, Options{})
			require.NoError(t, err)
			f.Output = out
			before, err := os.Stat(out)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o640), before.Mode())
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			after, err := os.Stat(out)
			require.NoError(t, err)
			assert.True(t, os.SameFile(before, after), "the file was replaced")
			assert.Len(t, s.asked(), tt.gets)
			only(t, filepath.Dir(out), "out")

			f.Mode = 0o750
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			after, err = os.Stat(out)
			require.NoError(t, err)
			assert.True(t, os.SameFile(before, after), "the file was replaced")
			assert.Equal(t, f.Mode, after.Mode(), "another mode is asked for")
			f.Mode = 0
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			after, err = os.Stat(out)
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o750), after.Mode(), "none is asked for")

			require.NoError(t, os.WriteFile(out, data[1:], 0o640))
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			got, err := os.ReadFile(out)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(data, got), "what was damaged is mended")
		})
	}
}

// A later process goes on where an earlier one was killed.
func TestALaterRunGoesOn(t *testing.T) {
	t.Parallel()
	data := content(400_000)
	s := serve(t, &server{data: data})
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(out), ".out.partial"), data[:300_000], 0o600))
	_, err := fetchOne(t, File{URL: s.URL, Output: out, Sum: sumOf(data)}, Options{})
	require.NoError(t, err)
	require.Len(t, s.asked(), 1)
	assert.Equal(t, "bytes=300000-", s.asked()[0].Header.Get("Range"))

	// What is there is of something else: once more from the start.
	require.NoError(t, os.Remove(out))
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(out), ".out.partial"), data[1:300_001], 0o600))
	_, err = fetchOne(t, File{URL: s.URL, Output: out, Sum: sumOf(data)}, Options{})
	require.NoError(t, err)
	assert.Len(t, s.asked(), 3)
	// All was there already.
	require.NoError(t, os.Rename(out, filepath.Join(filepath.Dir(out), ".out.partial")))
	_, err = fetchOne(t, File{URL: s.URL, Output: out, Sum: sumOf(data)}, Options{})
	require.NoError(t, err)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, got))
}

func TestManyAtOnceFetchOnce(t *testing.T) {
	t.Parallel()
	data := content(300_000)
	var gets atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gets.Add(1)
		time.Sleep(50 * time.Millisecond)
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	out := filepath.Join(t.TempDir(), "out")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := fetchOne(t, File{URL: s.URL, Output: out, Sum: sumOf(data)}, Options{})
			assert.NoError(t, err)
		})
	}
	all.Wait()
	assert.EqualValues(t, 1, gets.Load())
	only(t, filepath.Dir(out), "out")
}

// Whoever reads sees nothing, or all.
func TestReadersSeeAllOrNothing(t *testing.T) {
	t.Parallel()
	data := content(2_000_000)
	s := serve(t, &server{data: data, tricks: many(5, cut(300_000))})
	out := filepath.Join(t.TempDir(), "out")
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			if got, err := os.ReadFile(out); err == nil && !assert.True(t, bytes.Equal(data, got), "%d bytes", len(got)) {
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	_, err := fetchOne(t, File{URL: s.URL, Output: out, Sum: sumOf(data)}, Options{})
	close(done)
	reader.Wait()
	require.NoError(t, err)
}

func TestCredentialsStayAtHome(t *testing.T) {
	t.Parallel()
	var stranger http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stranger = r.Header.Clone()
		_, _ = w.Write([]byte("content"))
	}))
	t.Cleanup(other.Close)
	var own []http.Header
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own = append(own, r.Header.Clone())
		if r.URL.Path == "/first" {
			http.Redirect(w, r, "/second?sig=1", http.StatusFound)
			return
		}
		http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(home.Close)
	header := http.Header{"Authorization": {"Bearer hunter22"}, "X-Api-Key": {"hunter22"}}
	_, err := fetchOne(t, File{URL: home.URL + "/first", Header: header}, Options{AllowHTTP: true})
	require.NoError(t, err)
	require.Len(t, own, 2)
	assert.Equal(t, "Bearer hunter22", own[1].Get("Authorization"))
	assert.Equal(t, "hunter22", own[1].Get("X-Api-Key"))
	for name, values := range stranger {
		assert.NotContains(t, strings.Join(values, " "), "hunter22", name)
	}
	assert.Empty(t, stranger.Get("Referer"))

	_, err = fetchOne(t, File{URL: home.URL + "/first", Header: header}, Options{})
	require.ErrorContains(t, err, "clear text")
	assert.Len(t, own, 2, "nothing was asked for")
}

// The name of a host has no case.
func TestCredentialsForTheHostInCapitals(t *testing.T) {
	t.Parallel()
	const from, to = "https://API/m", "https://api/m"
	var last *http.Request
	_, err := fetchOne(t, File{URL: from, Header: http.Header{"Authorization": {"Bearer hunter22"}, "X-Api-Key": {"hunter22"}}}, Options{
		Transport: roundTrip(func(r *http.Request) *http.Response {
			answer := httptest.NewRecorder()
			if last = r; r.URL.String() == from {
				http.Redirect(answer, r, to, http.StatusFound)
			}
			return answer.Result()
		}),
	})
	require.NoError(t, err)
	assert.Equal(t, to, last.URL.String())
	assert.Equal(t, "Bearer hunter22", last.Header.Get("Authorization"))
	assert.Equal(t, "hunter22", last.Header.Get("X-Api-Key"))
	assert.Empty(t, last.Referer())
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestTLSAndItsEnd(t *testing.T) {
	t.Parallel()
	plain := serve(t, &server{data: []byte("x")})
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain.URL, http.StatusFound)
			return
		}
		_, _ = w.Write([]byte("content"))
	}))
	t.Cleanup(secure.Close)
	o := Options{Transport: secure.Client().Transport, Tries: 1}
	_, err := fetchOne(t, File{URL: secure.URL + "/x"}, o)
	require.NoError(t, err)
	_, err = fetchOne(t, File{URL: secure.URL + "/down"}, o)
	require.ErrorContains(t, err, "redirected from https to http://")
	o.AllowHTTP = true
	_, err = fetchOne(t, File{URL: secure.URL + "/down"}, o)
	require.NoError(t, err)
	_, err = fetchOne(t, File{URL: secure.URL + "/x"}, Options{Tries: 1})
	require.ErrorContains(t, err, "certificate")
}

func TestFileURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/in", []byte("content"), 0o600))
	out, err := fetchOne(t, File{URL: "file://" + dir + "/in", Sum: sumOf([]byte("content"))}, Options{})
	require.NoError(t, err)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	assert.Equal(t, "content", string(got))
	_, err = fetchOne(t, File{URL: "file://" + dir + "/none"}, Options{})
	require.ErrorContains(t, err, "no such file")
	_, err = fetchOne(t, File{URL: "file://" + dir}, Options{})
	require.ErrorContains(t, err, "not a regular file")
}

func TestChecksumsFile(t *testing.T) {
	t.Parallel()
	data := content(1000)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/m.bin", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	mux.HandleFunc("/v1/SHA256SUMS", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s  other.bin\n%s *dist/m.bin\n", sumOf([]byte("x")).Hex, strings.ToUpper(sumOf(data).Hex))
	})
	mux.HandleFunc("/v1/wrong", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "SHA256 (m.bin) = %s\n", sumOf([]byte("x")).Hex)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	url := s.URL + "/v1/m.bin?sig=hunter22"
	_, err := fetchOne(t, File{URL: url, Checksums: s.URL + "/v1/SHA256SUMS"}, Options{})
	require.NoError(t, err)
	_, err = fetchOne(t, File{URL: url, Checksums: s.URL + "/v1/wrong"}, Options{})
	require.ErrorContains(t, err, "wrong content")
	_, err = fetchOne(t, File{URL: url, Checksums: s.URL + "/v1/none?sig=hunter22"}, Options{})
	require.ErrorContains(t, err, "404")
	assert.NotContains(t, err.Error(), "hunter22")
	local := filepath.Join(t.TempDir(), "SUMS")
	require.NoError(t, os.WriteFile(local, []byte("# none\n"), 0o600))
	_, err = fetchOne(t, File{URL: url, Checksums: local}, Options{})
	require.ErrorContains(t, err, "has no line for m.bin")
	require.NoError(t, os.WriteFile(local, []byte("\ufeff"+sumOf(data).Hex+"  m.bin\r\n"), 0o600))
	_, err = fetchOne(t, File{URL: url, Checksums: local}, Options{})
	require.NoError(t, err, "with a byte order mark")
}

// A server of checksums may hang before its answer, or in it, as one of files.
func TestChecksumsStall(t *testing.T) {
	t.Parallel()
	data := []byte("content")
	hang := func(text string) func(http.ResponseWriter, *http.Request, []byte) {
		return func(w http.ResponseWriter, r *http.Request, _ []byte) {
			if text != "" {
				_, _ = io.WriteString(w, text)
				_ = http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
		}
	}
	for name, trick := range map[string]func(http.ResponseWriter, *http.Request, []byte){"before the answer": hang(""), "in the answer": hang("0123")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: data})
			hangsOnce := func() *server {
				return serve(t, &server{data: []byte(sumOf(data).Hex + "  file\n"), tricks: []func(http.ResponseWriter, *http.Request, []byte){trick}})
			}
			sums := hangsOnce()
			out, err := fetchOne(t, File{URL: s.URL + "/file", Checksums: sums.URL + "/sums?sig=hunter22"}, Options{Tries: 1, Stall: 50 * time.Millisecond})
			require.EqualError(t, err, "fetch "+out+" from "+s.URL+"/file: checksums "+sums.URL+"/sums?…: no byte for 50ms")
			sums = hangsOnce()
			_, err = fetchOne(t, File{URL: s.URL + "/file", Checksums: sums.URL + "/sums"}, Options{Tries: 2, Stall: 2 * time.Second})
			require.NoError(t, err, "another try")
			assert.Len(t, sums.asked(), 2)
		})
	}
	t.Run("a pipe", func(t *testing.T) {
		t.Parallel()
		pipe := filepath.Join(t.TempDir(), "pipe")
		require.NoError(t, unix.Mkfifo(pipe, 0o600))
		s := serve(t, &server{data: data})
		for _, f := range []File{{URL: s.URL, Output: pipe}, {URL: s.URL, Checksums: pipe}, {URL: s.URL, Checksums: "file://" + pipe}, {URL: "file://" + pipe}, {URL: s.URL, Sum: sumOf(data), Output: pipe}} {
			_, err := fetchOne(t, f, Options{})
			require.ErrorContains(t, err, "not a regular file")
		}
		only(t, filepath.Dir(pipe), "pipe")
	})
}

// Much that is there already takes long to read; a stop signal does not wait.
func TestStoppedWhileReading(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"out", ".out.partial"} {
		dir := t.TempDir()
		large := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(large, nil, 0o600))
		require.NoError(t, os.Truncate(large, 1<<40))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		err := Run(ctx, []File{{URL: "http://127.0.0.1:1/", Output: filepath.Join(dir, "out"), Sum: sumOf(nil)}}, Options{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.FileExists(t, large)

		stopped, stop := context.WithCancel(t.Context())
		stop()
		p := newProgress(Options{}.withDefaults())
		defer p.stop()
		f := File{URL: "http://127.0.0.1:1/", Output: filepath.Join(dir, "out"), Sum: sumOf(nil)}
		require.ErrorIs(t, newFetch(f, Options{}.withDefaults(), p).run(stopped), context.Canceled)
		assert.FileExists(t, large, "not a byte was read of it")
	}
}

// What would not be read, or only one of two, is an error.
func TestManifestIsReadAsAWhole(t *testing.T) {
	t.Parallel()
	const one = "files:\n- {url: https://host/a, output: a}\n"
	for text, want := range map[string]string{
		one + "---\n" + one: "line 3: a second document",
		one + "---\n]\n":    "yaml: ",
		one + one:           "already defined",
		"files:\n- {url: https://host/a, output: a, url: b}": "already defined",
	} {
		_, err := ReadManifest(strings.NewReader(text))
		assert.ErrorContains(t, err, want, text)
	}
	items, err := ReadManifest(strings.NewReader("---\n" + one + "...\n"))
	require.NoError(t, err)
	assert.Len(t, items, 1)
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	data := content(200_000)
	s := serve(t, &server{data: data})
	_, err := fetchOne(t, File{URL: s.URL, Output: dir + "/out"}, Options{})
	require.ErrorIs(t, err, unix.ENOSPC)
	require.ErrorContains(t, err, "room for")
	only(t, dir)
	// A server that does not say how much it is.
	unknown := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = w.Write(data)
	}))
	t.Cleanup(unknown.Close)
	_, err = fetchOne(t, File{URL: unknown.URL, Output: dir + "/out"}, Options{})
	require.ErrorIs(t, err, unix.ENOSPC)
	assert.NoFileExists(t, dir+"/out")
}

func TestStopped(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 10))
		w.(http.Flusher).Flush()
		close(started)
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := io.ErrClosedPipe
	go func() { <-started; cancel(reason) }()
	err := Run(ctx, []File{{URL: s.URL, Output: out, Sum: sumOf(nil)}, {URL: s.URL, Output: out + "2"}}, Options{Parallel: 1})
	require.ErrorIs(t, err, reason)
	assert.NoFileExists(t, out)
}

// On a terminal one line lives, and what is logged between takes its place.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "2097152")
		_, _ = w.Write(make([]byte, 1<<20))
		w.(http.Flusher).Flush()
		time.Sleep(3 * drawEvery)
		_, _ = w.Write(make([]byte, 1<<20))
	}))
	t.Cleanup(s.Close)
	var screen bytes.Buffer
	_, err := fetchOne(t, File{URL: s.URL}, Options{Terminal: &screen})
	require.NoError(t, err)
	text := screen.String()
	assert.Contains(t, text, "out 1.0 MiB of 2.0 MiB (50%), ")
	assert.True(t, strings.HasSuffix(text, "\x1b[K\r\x1b[K"), "%q", text)
	assert.NotContains(t, text, "\n")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	secret := http.Header{"Authorization": {"x"}}
	err := Check([]File{
		{URL: "", Output: "/a"},
		{URL: "ftp://host/x", Output: "/b"},
		{URL: "file://host/x", Output: "/c"},
		{URL: "http://user:hunter22@host/x?sig=hunter22", Output: "/d"},
		{URL: "http://host/x", Output: "/e", Header: secret},
		{URL: "https://ho st/%zz?hunter22", Output: "/f"},
		{URL: "https://user:hunter22/x@host/x", Output: "/i"},
		{URL: "https://host/x"},
		{URL: "https://host/x", Output: "/"},
		{URL: "https://host/x", Output: "/g", Strip: 1},
		{URL: "https://host/x", Output: "/h"},
		{URL: "https://host/y", Output: "/h/"},
	}, Options{})
	require.Error(t, err)
	for _, want := range []string{
		"the URL is missing", "ftp://host/x: accepted are", "three slashes", "http://host/x?…: credentials", "http://host/x: credentials",
		"the URL can't be read: invalid", "the URL can't be read: special characters", "the output is missing", "output / is a directory", "output /h/ is a directory", "strip 1", "/h is the output of two files",
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), "hunter22")
	assert.Len(t, strings.Split(err.Error(), "\n"), 12)
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 0, "86400": longestRetryAfter,
		now.Add(30 * time.Second).Format(http.TimeFormat): 30 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		assert.Equal(t, want, parseRetryAfter(text, now), text)
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes -1-2/3", "bytes 1-2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if from, total, err := contentRange(s); err == nil && (from < 0 || total < -1 || total >= 0 && from > total) {
			t.Errorf("%q gave %d of %d", s, from, total)
		}
	})
}

func FuzzFindSum(f *testing.F) {
	f.Add(sumOf(nil).Hex+"  a\n", "a")
	f.Add("SHA256 (a) = "+sumOf(nil).Hex+"\n", "a")
	f.Add(sumOf(nil).Hex, "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		if s, err := findSum(strings.NewReader(text), name); err == nil {
			if again, err := ParseSum(s.Algorithm, s.Hex); err != nil || again != s {
				t.Errorf("%q gave %v", text, s)
			}
		}
	})
}
