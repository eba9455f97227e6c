// SPDX-License-Identifier: Apache-2.0

package download

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A fetch is one file on its way.
type fetch struct {
	File
	o       Options
	client  *http.Client
	state   *state
	version version // of what is being fetched
}

// version is by what a server tells one content of a URL from another.
type version struct {
	Sum          string    `json:"sum,omitempty"`
	ETag         string    `json:"etag,omitempty"`
	LastModified time.Time `json:"lastModified,omitzero"`
	Length       int64     `json:"length"` // -1: not known
}

// errUnchanged ends a try that finds the right content in place.
var errUnchanged = errors.New("unchanged")

func newFetch(f File, o Options, p *progress) *fetch {
	if f.Unpack { // "." has no name to be put in place under
		if path, err := filepath.Abs(f.Output); err == nil {
			f.Output = path
		}
	}
	x := &fetch{File: f, o: o, state: p.add(filepath.Base(f.Output))}
	x.client = &http.Client{Transport: o.Transport, CheckRedirect: x.redirect}
	return x
}

// shownURL is a URL without what may be secret in it: a presigned one has its
// signature in the query.
func shownURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that can't be read"
	}
	query := ""
	if u.RawQuery != "" {
		query = "?…"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() + query
}

// check finds what is wrong with one file.
func (f File) check(o Options) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	u, err := url.Parse(f.URL)
	switch {
	case f.URL == "":
		add("the URL is missing")
	case err != nil && strings.Contains(f.URL, "@"): // what can't be read may be the password
		add("the URL can't be read: special characters of a password in it (: / ? # [ ] @ %% and blanks) are written %%XX")
	case err != nil:
		add("the URL can't be read: %w", withoutURL(err))
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost"):
	case u.Scheme == "file":
		add("URL %s: a file URL has three slashes, file:///path", shownURL(f.URL))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		add("URL %s: accepted are http, https and file", shownURL(f.URL))
	case u.Scheme == "http" && !o.AllowHTTP && (len(f.Header) > 0 || u.User != nil):
		add("URL %s: credentials would be sent in clear text: use https, or --allow-http", shownURL(f.URL))
	}
	if f.Output == "" {
		add("the output is missing")
	} else if base := filepath.Base(f.Output); (base == "/" || base == "." || base == ".." || strings.HasSuffix(f.Output, "/")) && !f.Unpack {
		add("output %s is a directory: name the file", f.Output)
	}
	if f.Strip != 0 && !f.Unpack || f.Strip < 0 {
		add("output %s: strip %d: accepted is a number from 0, for an archive", f.Output, f.Strip)
	}
	return errors.Join(problems...)
}

// run brings the file to its place.
func (x *fetch) run(ctx context.Context) error {
	if err := x.findSum(ctx); err != nil {
		return err
	}
	dir := x.workDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	part, err := openPartial(ctx, filepath.Join(dir, "."+filepath.Base(x.Output)+".partial"), x.o.Log)
	if err != nil {
		return err
	}
	defer part.Close()
	done, err := x.inPlace(ctx)
	if err == nil && !done {
		if err = part.begin(ctx, x.Sum); err == nil {
			err = x.whole(ctx, part)
		}
	}
	x.state.finish()
	switch {
	case done || errors.Is(err, errUnchanged):
		x.o.Log.Info("nothing to do: the right content is in place", "output", x.Output)
		return errors.Join(x.setMode(), os.Remove(part.Name()))
	case err == nil && x.Unpack:
		err = x.unpack(ctx, part)
	case err == nil:
		err = x.publish(part)
	}
	// Without a sum no later run can tell that it is of the same file.
	if err != nil && (part.empty() || x.Sum.Hex == "") {
		_ = os.Remove(part.Name())
	}
	return err
}

// workDir is where the file grows: on the file system of the output.
func (x *fetch) workDir() string {
	if x.Unpack && isMount(x.Output) {
		return x.Output
	}
	return filepath.Dir(filepath.Clean(x.Output))
}

// isMount tells whether path is where a file system is mounted, onto which
// nothing can be renamed.
func isMount(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// inPlace tells whether the right content is there already, as far as that can
// be told without asking the server.
func (x *fetch) inPlace(ctx context.Context) (bool, error) {
	if !x.Unpack {
		// Anything else would be replaced, be it /dev/stdout.
		switch info, err := os.Stat(x.Output); {
		case err == nil && info.IsDir():
			return false, fmt.Errorf("%s is a directory: name the file, or unpack an archive into it", x.Output)
		case err == nil && !info.Mode().IsRegular():
			return false, fmt.Errorf("%s is not a regular file", x.Output)
		}
	}
	if x.Sum.Hex == "" {
		return false, nil
	}
	if x.Unpack {
		m := x.marker()
		return m.Sum == x.Sum.String() && m.Strip == x.Strip, nil
	}
	f, _, err := openRegular(x.Output)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := x.Sum.hash()
	if _, err := io.Copy(h, bound{ctx, f}); err != nil {
		return false, err
	}
	return x.Sum.of(h) == x.Sum, nil
}

// unchanged tells whether what the server offers is what is in place.
func (x *fetch) unchanged(v version) bool {
	if x.Unpack {
		m := x.marker()
		return m.Strip == x.Strip && m.Length == v.Length && m.ETag == v.ETag && m.LastModified.Equal(v.LastModified) && (v.ETag != "" || !v.LastModified.IsZero())
	}
	info, err := os.Stat(x.Output)
	// Published files have the server's date, so that one which was changed
	// since then has another.
	return err == nil && info.Mode().IsRegular() && !v.LastModified.IsZero() && info.Size() == v.Length && info.ModTime().Equal(v.LastModified)
}

// markerName is the file in an unpacked directory that says what it is.
const markerName = ".fetch.json"

// unpacked is what the marker has: which archive, and what became of its names.
type unpacked struct {
	version
	Strip int `json:"strip,omitempty"`
}

func (x *fetch) marker() (u unpacked) {
	u.Length = -1
	if data, err := os.ReadFile(filepath.Join(x.Output, markerName)); err == nil {
		_ = json.Unmarshal(data, &u)
	}
	return u
}

// setMode gives the file that is in place the mode that was asked for. It may be
// somebody else's (the kubelet has made it the group's, and we run as another
// user now): then it is as right as it was, and its mode is only told.
func (x *fetch) setMode() error {
	if x.Unpack || x.Mode == 0 {
		return nil
	}
	info, err := os.Stat(x.Output)
	if err != nil || info.Mode().Perm() == x.Mode {
		return err
	}
	err = os.Chmod(x.Output, x.Mode)
	switch {
	case errors.Is(err, unix.EPERM):
		x.o.Log.Warn("mode not changed: the file is not ours", "output", x.Output, "mode", info.Mode(), "wanted", x.Mode)
		return nil
	case err == nil:
		x.o.Log.Info("mode changed", "output", x.Output, "mode", x.Mode)
	}
	return err
}

// publish puts what is whole and verified into its place.
func (x *fetch) publish(part *partial) error {
	if err := part.Chmod(cmp.Or(x.Mode, defaultMode)); err != nil {
		return err
	}
	if t := x.version.LastModified; !t.IsZero() {
		if err := os.Chtimes(part.Name(), t, t); err != nil {
			return err
		}
	}
	if err := part.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part.Name(), x.Output); err != nil {
		return err
	}
	x.o.Log.Info("fetched", "output", x.Output, "bytes", part.size, "sum", x.Sum.String(), "from", shownURL(x.URL))
	return syncDir(filepath.Dir(x.Output))
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

const (
	firstPause   = 500 * time.Millisecond
	longestPause = 30 * time.Second
)

// pauseAfter is how long to wait after so many failures: anything up to a limit
// that doubles (full jitter), so that many who failed together come back apart.
func pauseAfter(failed int) time.Duration {
	limit := longestPause
	if failed < 7 {
		limit = firstPause << (failed - 1)
	}
	return time.Duration(rand.Int64N(int64(limit)))
}
