// SPDX-License-Identifier: Apache-2.0

package download

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// An entry of an archive in a test.
type entry struct {
	name, body, link string
	kind             byte // of tar; 0: a file
	mode             int64
}

func tarOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.body)), Mode: e.mode, ModTime: modified}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := io.WriteString(w, e.body)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zipOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: modified}
		h.SetMode(fs.FileMode(e.mode))
		body := e.body
		if e.kind == tar.TypeSymlink {
			h.SetMode(fs.ModeSymlink | 0o777)
			body = e.link
		}
		f, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = io.WriteString(f, body)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func compressed(t *testing.T, data []byte, w func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var b bytes.Buffer
	z := w(&b)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

func gzipped(t *testing.T, data []byte) []byte {
	return compressed(t, data, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
}

func zstandard(t *testing.T, data []byte) []byte {
	return compressed(t, data, func(w io.Writer) io.WriteCloser {
		z, err := zstd.NewWriter(w)
		require.NoError(t, err)
		return z
	})
}

// tree is what is in a directory: modes, link targets and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		switch {
		case name == "." || name == markerName:
		case d.IsDir():
			all[name] = info.Mode().String()
		case d.Type() == fs.ModeSymlink:
			all[name], err = os.Readlink(path)
			require.NoError(t, err)
		default:
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			all[name] = info.Mode().String() + " " + string(data)
		}
		return nil
	}))
	return all
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	entries := []entry{
		{name: "top/", kind: tar.TypeDir, mode: 0o750},
		{name: "top/bin/run", body: "#!", mode: 0o4755},
		{name: "./top/data", body: "data", mode: 0o600},
		{name: "top/link", kind: tar.TypeSymlink, link: "bin/../data"},
		{name: "top/data", body: "newer", mode: 0o644},
	}
	want := map[string]string{"bin": "drwxr-xr-x", "bin/run": "-rwxr-xr-x #!", "data": "-rw-r--r-- newer", "link": "bin/../data"}
	hard := append(entries[:len(entries):len(entries)], entry{name: "top/hard", kind: tar.TypeLink, link: "top/data"})
	archives := map[string][]byte{
		"tar":     tarOf(t, entries...),
		"tar.gz":  gzipped(t, tarOf(t, entries...)),
		"tar.zst": zstandard(t, tarOf(t, entries...)),
		"hard":    tarOf(t, hard...),
	}
	for name, data := range archives {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: data, dated: true})
			f := File{URL: s.URL + "/a", Output: filepath.Join(t.TempDir(), "out"), Unpack: true, Strip: 1}
			want := maps.Clone(want)
			if name == "hard" {
				want["hard"] = want["data"]
			}
			_, err := fetchOne(t, f, Options{})
			require.NoError(t, err)
			assert.Equal(t, want, tree(t, f.Output))
			only(t, filepath.Dir(f.Output), "out")

			require.NoError(t, os.WriteFile(f.Output+"/mine", nil, 0o600))
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			assert.FileExists(t, f.Output+"/mine", "the marker says that nothing is to do")

			f.Strip = 0
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			assert.FileExists(t, f.Output+"/top/bin/run", "the marker says that it was another part of the names")
			f.Sum = sumOf(data)
			for _, f.Strip = range []int{0, 1} {
				_, err = fetchOne(t, f, Options{})
				require.NoError(t, err)
			}
			assert.Equal(t, want, tree(t, f.Output))
			f.Sum = Sum{}

			next := serve(t, &server{data: tarOf(t, entry{name: "x/other", body: "v2", mode: 0o644})})
			f.URL = next.URL
			_, err = fetchOne(t, f, Options{})
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"other": "-rw-r--r-- v2"}, tree(t, f.Output))
			only(t, filepath.Dir(f.Output), "out")
		})
	}
}

func TestUnpackZip(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{data: zipOf(t,
		entry{name: "bin/", mode: int64(fs.ModeDir | 0o755)}, entry{name: "bin/run", body: "#!", mode: 0o755},
		entry{name: "a b", body: "x", mode: 0o640}, entry{name: "link", kind: tar.TypeSymlink, link: "a b"},
	)})
	out, err := fetchOne(t, File{URL: s.URL, Unpack: true}, Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"bin": "drwxr-xr-x", "bin/run": "-rwxr-xr-x #!", "a b": "-rw-r----- x", "link": "a b"}, tree(t, out))
}

// An archive that GNU tar made, with long names and sparse bits of its own.
func TestUnpackWhatTarMade(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	long := strings.Repeat("long/", 60) + "name"
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "in", filepath.Dir(long)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in", long), []byte("x"), 0o644))
	for _, format := range []string{"gnu", "pax"} {
		archive := filepath.Join(dir, format+".tar.bz2")
		out, err := exec.Command("tar", "-C", dir+"/in", "--format="+format, "-cjf", archive, ".").CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) || strings.Contains(string(out), "bzip2") {
			t.Skipf("GNU tar with bzip2 is not installed: %s", out)
		}
		require.NoError(t, err, "%s", out)
		got, err := fetchOne(t, File{URL: "file://" + archive, Unpack: true}, Options{})
		require.NoError(t, err)
		data, err := os.ReadFile(filepath.Join(got, long))
		require.NoError(t, err)
		assert.Equal(t, "x", string(data))
	}
}

// One bad entry is the end of the whole archive: nothing of it is published.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	good := entry{name: "good", body: "x", mode: 0o644}
	bomb := gzipped(t, tarOf(t, entry{name: "zeros", body: strings.Repeat("\x00", 40<<20), mode: 0o644}))
	tests := map[string]struct {
		data []byte
		want string
	}{
		"dots":                 {tarOf(t, good, entry{name: "a/../../evil", body: "x"}), "leaves the directory"},
		"dots in a zip":        {zipOf(t, good, entry{name: "../evil", body: "x"}), "leaves the directory"},
		"an absolute name":     {tarOf(t, good, entry{name: "/etc/evil", body: "x"}), "begins with /"},
		"a link out":           {tarOf(t, good, entry{name: "l", kind: tar.TypeSymlink, link: "../.."}), "leaves the directory"},
		"a link to the root":   {tarOf(t, good, entry{name: "l", kind: tar.TypeSymlink, link: "/etc"}), "leaves the directory"},
		"a link out of a zip":  {zipOf(t, good, entry{name: "l", kind: tar.TypeSymlink, link: "/etc"}), "leaves the directory"},
		"a hard link out":      {tarOf(t, good, entry{name: "l", kind: tar.TypeLink, link: "../../etc/passwd"}), "leaves the directory"},
		"a link onto itself":   {tarOf(t, good, entry{name: "l", kind: tar.TypeSymlink, link: "l"}, entry{name: "l/x", body: "x"}), ""},
		"a device":             {tarOf(t, good, entry{name: "null", kind: tar.TypeChar}), "no file"},
		"a pipe":               {tarOf(t, good, entry{name: "pipe", kind: tar.TypeFifo}), "no file"},
		"a bomb":               {bomb, "--max-unpacked"},
		"all of it stripped":   {tarOf(t, good, entry{name: "d/", kind: tar.TypeDir}), "nothing is left"},
		"no archive":           {[]byte("just text"), "no archive that we know"},
		"nothing":              {nil, "no archive that we know"},
		"half an archive":      {gzipped(t, tarOf(t, good))[:40], "unexpected EOF"},
		"a file that is a dir": {tarOf(t, entry{name: "d/x", body: "x"}, entry{name: "d", body: "x"}), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: tt.data})
			f := File{URL: s.URL, Unpack: true}
			if name == "all of it stripped" {
				f.Strip = 1
			}
			out, err := fetchOne(t, f, Options{MaxUnpacked: 1 << 20})
			require.Error(t, err)
			require.ErrorContains(t, err, tt.want)
			entries, err := os.ReadDir(filepath.Dir(out))
			require.NoError(t, err)
			for _, e := range entries {
				assert.Equal(t, ".out.partial", e.Name())
			}
		})
	}
}

// A link leads where the links on its way say, and not where its name does: a
// reader would follow it.
func TestLinksThatLeaveByOtherLinks(t *testing.T) {
	t.Parallel()
	link := func(name, target string) entry { return entry{name: name, kind: tar.TypeSymlink, link: target} }
	top := entry{name: "top/", kind: tar.TypeDir, mode: 0o755}
	climbs := link("e", "p/q/r/s/../../../etc/passwd") // p/etc/passwd, if s were a directory
	tests := map[string]struct {
		entries []entry
		want    string
	}{
		"through a link":              {[]entry{top, link("p/q/r/s", "../../../top"), climbs}, "leaves the directory"},
		"before the link":             {[]entry{climbs, link("p/q/r/s", "../../../top"), top}, "leaves the directory"},
		"through links to links":      {[]entry{top, link("x", "top"), link("p/q/r/s", "../../../x"), climbs}, "leaves the directory"},
		"through a directory to come": {[]entry{climbs}, "leaves the directory"},
		"made in a link":              {[]entry{top, link("p/q/s", "../../top"), link("p/q/s/e", "../../../etc/passwd")}, "leaves the directory"},
		"made in a link that is gone": {[]entry{top, link("p/q/s", "../../top"), link("p/q/s/e", "../../../etc/passwd"), {name: "p/q/s", body: "x"}}, "leaves the directory"},
		"a hard link to a link":       {[]entry{{name: "x", body: "x"}, link("a/b/c", "../../x"), {name: "e", kind: tar.TypeLink, link: "a/b/c"}}, "leaves the directory"},
		"out and in again":            {[]entry{top, link("p/q/r/s", "../../../top"), link("e", "p/q/r/s/../../../out/top")}, "leaves the directory"},
		"in a circle":                 {[]entry{link("a", "b"), link("b", "a")}, "leads nowhere"},

		"inside":         {[]entry{top, link("p/q/r/s", "../../../top"), link("e", "p/q/r/s/../top"), link("f", "e/../p")}, ""},
		"target to come": {[]entry{link("e", "d/../x"), {name: "x", body: "x"}, {name: "d/y", body: "y"}}, ""},
		"dangling":       {[]entry{link("lib/e", "../share/later")}, ""},
		"removed again":  {[]entry{top, link("p/q/r/s", "../../../top"), climbs, {name: "e", body: "x"}}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, &server{data: tarOf(t, tt.entries...)})
			out, err := fetchOne(t, File{URL: s.URL, Unpack: true}, Options{})
			if tt.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.want)
			assert.NoDirExists(t, out)
		})
	}
}

// An entry may have the name of our marker; it is not written through.
func TestMarkerInTheArchive(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{data: tarOf(t, entry{name: "x", body: "x", mode: 0o644}, entry{name: markerName, kind: tar.TypeSymlink, link: "x"})})
	out, err := fetchOne(t, File{URL: s.URL, Unpack: true}, Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"x": "-rw-r--r-- x"}, tree(t, out))
}

// What somebody else put there is not thrown away.
func TestUnpackOverOthersFiles(t *testing.T) {
	t.Parallel()
	s := serve(t, &server{data: tarOf(t, entry{name: "a", body: "x", mode: 0o644})})
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, os.Mkdir(out, 0o755))
	_, err := fetchOne(t, File{URL: s.URL, Output: out, Unpack: true}, Options{})
	require.NoError(t, err, "an empty directory is fine")
	require.NoError(t, os.Remove(filepath.Join(out, markerName)))
	_, err = fetchOne(t, File{URL: s.URL, Output: out, Unpack: true}, Options{})
	require.ErrorContains(t, err, "files that we did not unpack")
	assert.FileExists(t, out+"/a")
}

// The directory that we are in may be the output: it is replaced as another is,
// or left alone.
func TestUnpackHere(t *testing.T) {
	s := serve(t, &server{data: tarOf(t, entry{name: "a", body: "x", mode: 0o644})})
	dir := filepath.Join(t.TempDir(), "here")
	require.NoError(t, os.Mkdir(dir, 0o755))
	t.Chdir(dir)
	require.NoError(t, os.WriteFile("mine", nil, 0o644))
	for _, name := range []string{".", "./", "../here", "x/.."} {
		_, err := fetchOne(t, File{URL: s.URL, Output: name, Unpack: true}, Options{})
		require.ErrorContains(t, err, "files that we did not unpack", name)
		only(t, dir, "mine")
	}
	require.NoError(t, os.Remove("mine"))
	_, err := fetchOne(t, File{URL: s.URL, Output: ".", Unpack: true}, Options{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a": "-rw-r--r-- x"}, tree(t, dir))
	only(t, filepath.Dir(dir), "here")
}

// A volume with fsGroup is the group's, and so is all that is unpacked there; a
// directory that was made for it keeps its mode.
func TestUnpackForAGroup(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root has a second group for certain")
	}
	const group = 2000
	volume := t.TempDir()
	require.NoError(t, os.Chown(volume, -1, group))
	require.NoError(t, os.Chmod(volume, 0o775|fs.ModeSetgid))
	made := filepath.Join(t.TempDir(), "made")
	require.NoError(t, os.Mkdir(made, 0o750))
	require.NoError(t, os.Chown(made, -1, group))
	data := tarOf(t, entry{name: "d/", kind: tar.TypeDir, mode: 0o750}, entry{name: "d/a", body: "x", mode: 0o640}, entry{name: "e/b", body: "x", mode: 0o640})
	s := serve(t, &server{data: data})
	for _, tt := range []struct {
		output, root, dir string
		gid               uint32 // of what is in the directory
	}{
		{filepath.Join(volume, "out"), "dgrwxr-xr-x", "dgrwxr-x---", group},
		{made, "drwxr-x---", "drwxr-x---", uint32(os.Getegid())},
	} {
		for range 2 { // the second replaces the first
			_, err := fetchOne(t, File{URL: s.URL, Output: tt.output, Unpack: true}, Options{})
			require.NoError(t, err)
			look := func(name string) (string, uint32) {
				info, err := os.Stat(filepath.Join(tt.output, name))
				require.NoError(t, err)
				return info.Mode().String(), info.Sys().(*syscall.Stat_t).Gid
			}
			mode, gid := look(".")
			assert.Equal(t, tt.root, mode)
			assert.EqualValues(t, group, gid)
			for _, name := range []string{"d/a", "e/b"} {
				mode, gid = look(name)
				assert.Equal(t, "-rw-r-----", mode, name)
				assert.Equal(t, tt.gid, gid, name)
			}
			mode, _ = look("d")
			assert.Equal(t, tt.dir, mode)
		}
	}
}

// A volume is itself a mount, onto which nothing can be renamed.
func TestUnpackIntoAVolume(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	dir := t.TempDir()
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4M"))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	stale := filepath.Join(dir, "."+filepath.Base(dir)+".unpack-old")
	require.NoError(t, os.Mkdir(stale, 0o755))
	for i, name := range []string{"a", "b"} {
		data := tarOf(t, entry{name: "d/" + name, body: name, mode: 0o644}, entry{name: "f", body: fmt.Sprint(i), mode: 0o644})
		s := serve(t, &server{data: data})
		f := File{URL: s.URL, Output: dir, Unpack: true, Sum: sumOf(data)}
		for range 2 {
			_, err := fetchOne(t, f, Options{})
			require.NoError(t, err)
		}
		assert.Len(t, s.asked(), 1)
		assert.Equal(t, map[string]string{"d": "drwxr-xr-x", "d/" + name: "-rw-r--r-- " + name, "f": "-rw-r--r-- " + fmt.Sprint(i)}, tree(t, dir))
	}
}

func FuzzPlaced(f *testing.F) {
	for _, s := range []string{"a/b", "../a", "/a", "a/../b", "./a/", "..", "a//b", "a/.."} {
		f.Add(s, 0)
	}
	f.Fuzz(func(t *testing.T, name string, strip int) {
		if got, err := placed(name, max(strip, 0)); err == nil && got != "" && !filepath.IsLocal(got) {
			t.Errorf("%q is placed at %q", name, got)
		}
	})
}

func FuzzExtract(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "a/../x", Typeflag: tar.TypeSymlink, Linkname: "../y"})
	_ = w.Close()
	f.Add(b.Bytes())
	b.Reset()
	w = tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "p/q", Typeflag: tar.TypeSymlink, Linkname: "../t"})
	_ = w.WriteHeader(&tar.Header{Name: "t/", Typeflag: tar.TypeDir})
	_ = w.WriteHeader(&tar.Header{Name: "p/q/l", Typeflag: tar.TypeSymlink, Linkname: "../../.."})
	_ = w.WriteHeader(&tar.Header{Name: "h", Typeflag: tar.TypeLink, Linkname: "p/q/l"})
	_ = w.Close()
	f.Add(b.Bytes())
	f.Add([]byte("PK\x05\x06"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		stage := filepath.Join(dir, "stage")
		require.NoError(t, os.Mkdir(stage, 0o755))
		_, failed := extract(context.Background(), bytes.NewReader(data), int64(len(data)), stage, 0, 1<<20)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		if len(entries) != 1 {
			t.Errorf("something was made outside: %v", entries)
		}
		if failed != nil {
			return
		}
		require.NoError(t, filepath.WalkDir(stage, func(path string, _ fs.DirEntry, _ error) error {
			if end, err := filepath.EvalSymlinks(path); err == nil && !within(stage, end) {
				t.Errorf("%s leads to %s", path, end)
			}
			return nil
		}))
	})
}

// within tells whether a path is that of a directory, or below it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
