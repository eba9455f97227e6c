// SPDX-License-Identifier: Apache-2.0

//go:build !no_http

package await

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

func httpSchemes() []Scheme { return []Scheme{HTTP(), GRPC()} }

const userAgent = "cleanimg-init-await"

// mostOfBody is how much of a body is looked through.
const mostOfBody = 1 << 20

// HTTP is http://, https:// and h2c:// (HTTP/2 without TLS): a GET is answered
// with a status from 200 to 399, as for the kubelet, or with #status=204 (several
// as 200,204 or 200-299 or 2xx), #header=NAME:VALUE and #body=TEXT in the answer.
// #request-header=NAME:VALUE is sent. Redirects on the same host are followed
// unless #status= is given. Proxies are not used.
func HTTP() Scheme {
	return Scheme{
		names: []string{"http", "https", "h2c"}, secure: []string{"https"},
		options: append([]string{"status", "header", "body", "request-header"}, passwordOptions...), parse: parseHTTP,
	}
}

// web asks by HTTP.
type web struct {
	client   *http.Client
	url      string
	login    credentials
	send     http.Header
	status   []statusRange
	header   http.Header
	contains []byte
}

type statusRange struct{ from, to int }

func parseHTTP(t *target) (Check, error) {
	w := &web{contains: []byte(t.options.Get("body"))}
	_, err1 := t.hostWithPort(map[string]string{"http": "80", "https": "443", "h2c": "80"}[t.Scheme])
	var err2, err3, err4, err5 error
	w.login, err2 = t.credentials()
	w.status, err3 = parseStatus(t.options.Get("status"))
	w.header, err4 = parseHeaders("header", t.options["header"])
	w.send, err5 = parseHeaders("request-header", t.options["request-header"])
	for _, values := range w.send {
		for _, v := range values {
			t.keepSecretIn(v)
		}
	}
	transport, err6 := t.transport(t.Scheme == "h2c")
	w.client = &http.Client{Transport: transport, CheckRedirect: w.redirect}
	u := url.URL{Scheme: strings.Replace(t.Scheme, "h2c", "http", 1), Host: t.Host, Path: t.Path, RawPath: t.RawPath, RawQuery: t.RawQuery}
	w.url = u.String()
	return w.check, errors.Join(err1, err2, err3, err4, err5, err6)
}

// transport makes a connection of its own for each request.
func (t *target) transport(h2c bool) (*http.Transport, error) {
	conf, err := t.tlsConfig()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!h2c)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(h2c)
	return &http.Transport{
		TLSClientConfig:   conf,
		Protocols:         protocols,
		DisableKeepAlives: true,
		// A redirect may lead to another port of the host.
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: -1}).DialContext(ctx, network, addr)
		},
	}, err
}

// redirect follows on the same host, as the kubelet does. Credentials stay with
// the scheme, host and port that they were given for.
func (w *web) redirect(req *http.Request, via []*http.Request) error {
	const most = 10
	first := via[0].URL
	if len(w.status) > 0 || len(via) >= most || !strings.EqualFold(req.URL.Hostname(), first.Hostname()) {
		return http.ErrUseLastResponse
	}
	elsewhere := func(r *http.Request) bool { return !hooks.SameOrigin(first, r.URL) }
	if elsewhere(req) || slices.ContainsFunc(via, elsewhere) {
		req.Header = http.Header{"User-Agent": {userAgent}}
	} else {
		// Package http leaves some out where only the case of the host differs, and
		// adds a Referer, in which a secret of the query could be.
		req.Header = via[0].Header.Clone()
	}
	return nil
}

func (w *web) check(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, http.NoBody)
	if err != nil {
		return Permanent(err)
	}
	req.Header = w.send.Clone()
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", userAgent)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if w.login.given || w.login.user != "" {
		req.SetBasicAuth(w.login.user, w.login.password)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := w.judge(res); err != nil {
		return err
	}
	if len(w.contains) == 0 {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, mostOfBody))
	switch {
	case err != nil:
		return err
	case !bytes.Contains(body, w.contains):
		return fmt.Errorf("status %s, and the body does not contain %q", res.Status, w.contains)
	}
	return nil
}

// judge looks at status and header.
func (w *web) judge(res *http.Response) error {
	accepted := w.status
	if len(accepted) == 0 {
		accepted = []statusRange{{200, 399}}
	}
	if !slices.ContainsFunc(accepted, func(r statusRange) bool { return res.StatusCode >= r.from && res.StatusCode <= r.to }) {
		err := fmt.Errorf("status %s", res.Status)
		switch sent := res.Request.Header.Get("Authorization") != ""; {
		case res.StatusCode == http.StatusUnauthorized && sent:
			return Denied(err)
		case res.StatusCode == http.StatusUnauthorized && w.login.given:
			return fmt.Errorf("%w from %s, to which it was redirected without the credentials", err, res.Request.URL.Host)
		}
		return err
	}
	for name, values := range w.header {
		got := res.Header.Values(name)
		for _, want := range values {
			if len(got) == 0 || want != "" && !slices.Contains(got, want) {
				return fmt.Errorf("status %s, and the header has %s %q, not %q", res.Status, name, got, want)
			}
		}
	}
	return nil
}

// parseStatus reads 204 or 200,204 or 200-299 or 2xx.
func parseStatus(text string) (ranges []statusRange, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if class, ok := strings.CutSuffix(strings.ToLower(part), "xx"); ok {
			first, last, isRange = class+"00", class+"99", true
		}
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 100 || to > 599 || from > to {
			return nil, fmt.Errorf("option \"status\" is %q: 204, 200,204, 200-299 and 2xx are accepted", text)
		}
		ranges = append(ranges, statusRange{from, to})
	}
	return ranges, nil
}

// parseHeaders reads NAME:VALUE lines; a name alone is possible.
func parseHeaders(option string, lines []string) (http.Header, error) {
	h := http.Header{}
	for _, line := range lines {
		name, value, ok := hooks.ParseHeader(line)
		if !ok {
			return nil, fmt.Errorf("option %q has no NAME:VALUE", option)
		}
		h.Add(name, value)
	}
	return h, nil
}
