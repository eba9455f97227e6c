// SPDX-License-Identifier: Apache-2.0

//go:build !no_http

package await

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// api is a service with a path for each kind of answer.
func api() http.Handler {
	mux := http.NewServeMux()
	status := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "b")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
		}
	}
	mux.HandleFunc("/ready", status(200, "all is ok here"))
	mux.HandleFunc("/made", status(201, ""))
	mux.HandleFunc("/busy", status(503, "no"))
	mux.Handle("/moved", http.RedirectHandler("/busy", http.StatusFound))
	mux.Handle("/elsewhere", http.RedirectHandler("http://elsewhere.invalid/", http.StatusFound))
	mux.HandleFunc("/private", func(w http.ResponseWriter, r *http.Request) {
		if user, pass, _ := r.BasicAuth(); user != "app" || pass != password {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	mux.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Token") != "12345678" || r.Host != "shop.example" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Proto", r.Proto)
	})
	return mux
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(api())
	server.Config.Protocols = &http.Protocols{}
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	secret := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(secret, []byte(password+"\n"), 0o600))

	tests := []struct{ url, want string }{
		{"http://" + host + "/ready", ""},
		{"HTTP://" + host + "/ready?x=1", ""},
		{"http://" + host + "/ready#status=200", ""},
		{"http://" + host + "/ready#status=2xx&body=ok&header=X-A:b", ""},
		{"http://" + host + "/ready#header=x-a", ""},
		{"http://" + host + "/ready#header=X-A:%20c", "the header has X-A"},
		{"http://" + host + "/ready#header=X-B", "the header has X-B"},
		{"http://" + host + "/ready#body=fine", "does not contain"},
		{"http://" + host + "/ready#status=204", "status 200 OK"},
		{"http://" + host + "/made#status=200-204", ""},
		{"http://" + host + "/made#status=200,201", ""},
		{"http://" + host + "/busy", "status 503 Service Unavailable"},
		{"http://" + host + "/busy#status=503", ""},
		{"http://" + host + "/moved", "status 503"},
		{"http://" + host + "/moved#status=302", ""},
		{"http://" + host + "/elsewhere", ""},
		{"http://" + host + "/private", "status 401"},
		{"http://app:wr0ngpass@" + host + "/private", ErrPermanent.Error()},
		{"http://app@" + host + "/private#password-file=" + secret, ""},
		{"http://" + host + "/asked#request-header=X-Token:12345678&request-header=Host:shop.example", ""},
		{"http://" + host + "/asked", "status 403"},
		{"h2c://" + host + "/proto#header=X-Proto:HTTP/2.0", ""},
		{"http://" + host + "/proto#header=X-Proto:HTTP/1.1", ""},
		{"https://" + host + "/ready", "HTTP response to HTTPS client"},
		{"http://127.0.0.1:1/", "dial tcp 127.0.0.1:1: connect: connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.url, func(t *testing.T) {
			t.Parallel()
			err := ask(t, tt.url)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "wr0ngpass")
		})
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	server := httptest.NewUnstartedServer(api())
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pki.server}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pki.pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	strict := httptest.NewUnstartedServer(api())
	strict.TLS = &tls.Config{Certificates: []tls.Certificate{pki.server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pki.pool}
	strict.StartTLS()
	t.Cleanup(strict.Close)

	assert.NoError(t, ask(t, server.URL+"/proto#header=X-Proto:HTTP/2.0&ca="+pki.caFile))
	assert.NoError(t, ask(t, server.URL+"/ready#insecure"))
	assert.NoError(t, ask(t, server.URL+"/ready#servername=server.example&ca="+pki.caFile))
	assert.NoError(t, ask(t, strict.URL+"/ready#ca="+pki.caFile+"&cert="+pki.certFile+"&key="+pki.keyFile))
	err := ask(t, server.URL+"/ready")
	require.ErrorIs(t, err, ErrNotReady, "the certificate may be replaced by a good one")
	assert.ErrorContains(t, err, "certificate signed by unknown authority")
	assert.ErrorContains(t, ask(t, server.URL+"/ready#servername=other.example&ca="+pki.caFile), "other.example")
	assert.ErrorIs(t, ask(t, strict.URL+"/ready#ca="+pki.caFile), ErrNotReady)
}

// Credentials are for the place that was named: another port of the host, or
// the same without TLS, does not get them, nor who sends back from there.
func TestHTTPRedirectsKeepCredentials(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 10)
	var first *httptest.Server
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		if r.URL.Path == "/back" {
			http.Redirect(w, r, first.URL+"/end", http.StatusFound)
		}
	}))
	t.Cleanup(other.Close)
	first = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		switch r.URL.Path {
		case "/start":
			http.Redirect(w, r, "/again", http.StatusFound)
		case "/again":
			http.Redirect(w, r, other.URL+"/back", http.StatusFound)
		}
	}))
	t.Cleanup(first.Close)
	url := strings.Replace(first.URL, "://", "://app:"+"hunter22@", 1)
	require.NoError(t, ask(t, url+"/start?key=hunter22#insecure&request-header=X-Token:hunter22"))
	for _, path := range []string{"/start", "/again", "/back", "/end"} {
		r := <-seen
		require.Equal(t, path, r.URL.Path)
		_, password, _ := r.BasicAuth()
		given := path == "/start" || path == "/again"
		assert.Equal(t, given, password == "hunter22", path)
		assert.Equal(t, given, r.Header.Get("X-Token") == "hunter22", path)
		assert.Empty(t, r.Referer(), path)
		assert.Equal(t, userAgent, r.UserAgent(), path)
	}
}

// A default port that is named, or left out, is the same place; so is the host
// in capitals.
func TestHTTPRedirectsToTheDefaultPort(t *testing.T) {
	t.Parallel()
	for from, to := range map[string]string{"http://api/": "http://api:80/", "https://api:443/": "https://api/", "http://API/": "http://api/"} {
		var last *http.Request
		w := &web{url: from, login: credentials{user: "app", password: "hunter22"}, send: http.Header{"X-Token": {"hunter22"}}}
		w.client = &http.Client{CheckRedirect: w.redirect, Transport: roundTrip(func(r *http.Request) *http.Response {
			answer := httptest.NewRecorder()
			if last = r; r.URL.String() == from {
				http.Redirect(answer, r, to, http.StatusFound)
			}
			return answer.Result()
		})}
		require.NoError(t, w.check(t.Context()), from)
		require.Equal(t, to, last.URL.String())
		_, password, _ := last.BasicAuth()
		assert.Equal(t, "hunter22", password, from)
		assert.Equal(t, "hunter22", last.Header.Get("X-Token"), from)
		assert.Empty(t, last.Referer(), from)
	}
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// Credentials that were not sent cannot have been rejected.
func TestHTTPRedirectedToAPrivatePlace(t *testing.T) {
	t.Parallel()
	private := httptest.NewServer(api())
	t.Cleanup(private.Close)
	first := httptest.NewServer(http.RedirectHandler(private.URL+"/private", http.StatusFound))
	t.Cleanup(first.Close)
	err := ask(t, strings.Replace(first.URL, "://", "://"+url.UserPassword("app", password).String()+"@", 1))
	require.ErrorContains(t, err, "status 401 Unauthorized from "+strings.TrimPrefix(private.URL, "http://")+", to which it was redirected without the credentials")
	assert.NotErrorIs(t, err, ErrPermanent)
}

// A server of gRPC does not redirect, and what it is sent is for nobody else.
func TestGRPCIsNotRedirected(t *testing.T) {
	t.Parallel()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	serve := func(h http.HandlerFunc) string {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = protocols
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	other := serve(func(http.ResponseWriter, *http.Request) { t.Error("somebody else was asked") })
	first := serve(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusTemporaryRedirect) })
	err := ask(t, strings.Replace(first, "http:", "grpc:", 1)+"#request-header=X-Token:hunter22")
	assert.ErrorContains(t, err, "HTTP status 307")
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	serve := func(options ...grpc.ServerOption) (address string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := grpc.NewServer(options...)
		states := health.NewServer()
		states.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_SERVING)
		states.SetServingStatus("bank", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		grpc_health_v1.RegisterHealthServer(server, states)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		return l.Addr().String()
	}
	plain, secured := serve(), serve(grpc.Creds(grpccredentials.NewServerTLSFromCert(&pki.server)))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	without := grpc.NewServer()
	go func() { _ = without.Serve(l) }()
	t.Cleanup(without.Stop)

	assert.NoError(t, ask(t, "grpc://"+plain))
	assert.NoError(t, ask(t, "grpc://"+plain+"/shop"))
	assert.ErrorContains(t, ask(t, "grpc://"+plain+"/bank"), "health status NOT_SERVING")
	assert.ErrorContains(t, ask(t, "grpc://"+plain+"/nothing"), `does not know the service "nothing"`)
	assert.ErrorContains(t, ask(t, "grpc://"+l.Addr().String()), "no health service")
	assert.NoError(t, ask(t, "grpcs://"+secured+"/shop#ca="+pki.caFile))
	assert.ErrorContains(t, ask(t, "grpcs://"+secured), "unknown authority")
	assert.ErrorIs(t, ask(t, "grpcs://"+plain), ErrNotReady)
	assert.ErrorContains(t, ask(t, "grpc://127.0.0.1:1"), "connection refused")
}

func FuzzHealthAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 8})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if healthAnswer(frame) == nil {
			assert.Equal(t, []byte{8, 1}, frame[grpcPrefix:grpcPrefix+2])
		}
	})
}
