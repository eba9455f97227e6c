// SPDX-License-Identifier: Apache-2.0

package download

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// mostRedirects is how many are followed.
const mostRedirects = 10

// redirect follows an answer to another place: never to another scheme, never
// out of TLS unless that was allowed, and with the credentials to nobody but
// the first host.
func (x *fetch) redirect(req *http.Request, via []*http.Request) error {
	if len(via) > mostRedirects {
		return permanent("more than %d redirects", mostRedirects)
	}
	first := via[0].URL
	switch {
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return permanent("redirected to %s: accepted are http and https", shownURL(req.URL.String()))
	case first.Scheme == "https" && req.URL.Scheme == "http" && !x.o.AllowHTTP:
		return permanent("redirected from https to %s: --allow-http would follow", shownURL(req.URL.String()))
	}
	own := hooks.SameOrigin(first, req.URL)
	for _, r := range via {
		own = own && hooks.SameOrigin(first, r.URL)
	}
	if own { // all, and no Referer; package http leaves some out where only the case of the host differs
		req.Header = via[0].Header.Clone()
	} else {
		for name := range x.Header {
			req.Header.Del(name)
		}
		req.Header.Del("Authorization")
		req.Header.Del("Referer") // which could have a signature, in the query
	}
	return nil
}

// withoutURL is an error of package http or url without the URL, in which there
// may be secrets.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// validator is what another part of the same version can be asked for by. A
// weak tag may stand for other bytes (RFC 9110, 13.1.5).
func validator(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" {
		if strings.HasPrefix(tag, "W/") {
			return ""
		}
		return tag
	}
	return h.Get("Last-Modified")
}

func versionOf(h http.Header, length int64) version {
	v := version{ETag: h.Get("ETag"), Length: length}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		v.LastModified = t
	}
	return v
}

// contentRange reads "bytes 5-9/10" and "bytes */10"; a total of * is -1. The
// range must reach to the end, as it was asked for.
func contentRange(s string) (from, total int64, err error) {
	bad := fmt.Errorf("the server's Content-Range %q makes no sense", s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, cut := strings.Cut(rest, "/")
	if !ok || !cut {
		return 0, 0, bad
	}
	total = -1
	if size != "*" {
		if total, err = strconv.ParseInt(size, 10, 64); err != nil || total < 0 {
			return 0, 0, bad
		}
	}
	if span == "*" {
		return 0, total, nil
	}
	first, last, _ := strings.Cut(span, "-")
	from, err = strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	if err != nil || err2 != nil || from < 0 || to < from || total >= 0 && to != total-1 {
		return 0, 0, bad
	}
	return from, total, nil
}

// An answerError is an answer without content.
type answerError struct {
	status string
	after  time.Duration // that the server asks us to wait
}

func (e *answerError) Error() string { return "the server answered " + e.status }

// statusError is what an answer without content means: some may change.
func statusError(resp *http.Response) error {
	err := &answerError{status: resp.Status}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly,
		code >= 500 && code != http.StatusNotImplemented:
		err.after = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
		return err
	}
	return permanentError{err}
}

// longestRetryAfter is how long a server may make us wait: what it asks for
// beyond that is not worth a pod's start.
const longestRetryAfter = 5 * time.Minute

func parseRetryAfter(s string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(s, 10, 32); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, longestRetryAfter)
	}
	if t, err := http.ParseTime(s); err == nil && t.After(now) {
		return min(t.Sub(now), longestRetryAfter)
	}
	return 0
}

func retryAfter(err error) time.Duration {
	var answer *answerError
	if errors.As(err, &answer) {
		return answer.after
	}
	return 0
}
