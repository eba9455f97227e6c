// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// volumeImage has the tools that prepare a volume. A new volume that is mounted
// at /data gets the owner of the image's directory; at /app it stays root's.
func volumeImage(t *testing.T) string {
	r := newAppRoot(t)
	for _, tool := range []string{"init-storage", "fetch"} {
		r.copy(Binary(t, tool), "/usr/local/bin/"+tool)
	}
	r.dir("/data", 0o755, 65532)
	r.hook("10-volume.yaml", "run: [/usr/local/bin/init-storage, --dir, \"/data/models:0700\", --file, /data/models/.ready, --verify-writable]\n")
	return r.appImage("ENV CLEANIMG_INIT_HTTP_LISTEN=off")
}

func newVolume(t *testing.T) string {
	name := "cleanimg-init-test-" + labName(t)
	docker(t, "volume", "create", "--label", labLabel+"=1", name)
	t.Cleanup(func() { dockerTry("volume", "rm", "--force", name) })
	return name
}

// Init containers prepare a volume and fill it, each in the hardened settings;
// the application finds what they left.
func TestDockerVolumeIsPreparedAndFilled(t *testing.T) {
	needDocker(t)
	t.Parallel()
	image, volume := volumeImage(t), newVolume(t)
	model := bytes.Repeat([]byte("model "), 100_000)
	sum := sha256.Sum256(model)
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "words/de", Mode: 0o644, Size: 4, Typeflag: tar.TypeReg}))
	_, err := w.Write([]byte("Wort"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	gets := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gets++
		data := model
		if r.URL.Path == "/words.tar" {
			data = archive.Bytes()
		}
		http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)

	init := func(command ...string) (int, string) {
		c := startContainer(t, image, []string{"--network", "host", "--volume", volume + ":/data"}, command...)
		return c.wait(), c.log()
	}
	for range 2 {
		code, log := init("/usr/local/bin/fetch", "--url", server.URL+"/m.bin", "--output", "/data/models/m.bin", "--sha256", hex.EncodeToString(sum[:]))
		require.Equal(t, 0, code, log)
		assert.Contains(t, log, "directory ready", "the hook ran before")
		code, log = init("/usr/local/bin/fetch", "--url", server.URL+"/words.tar", "--output", "/data/words", "--unpack", "--strip", "1")
		require.Equal(t, 0, code, log)
	}
	assert.Equal(t, 3, gets, "a checksum tells without asking; a date needs one question")

	app := startContainer(t, image, []string{"--volume", volume + ":/data:ro", "--env", "CLEANIMG_INIT_HOOKS_SKIP=*"}, "/bin/testprog", "cat", "/data/words/de")
	assert.Equal(t, 0, app.wait())
	assert.Contains(t, app.log(), "Wort")
}

// A volume that belongs to root, as many drivers make them: what the pod lacks
// is said.
func TestDockerVolumeOfRootIsExplained(t *testing.T) {
	needDocker(t)
	t.Parallel()
	image, volume := volumeImage(t), newVolume(t)
	run := func(options []string, command ...string) (int, string) {
		c := startContainer(t, image, append(options, "--env", "CLEANIMG_INIT_HOOKS_SKIP=*", "--volume", volume+":/app"), command...)
		return c.wait(), c.log()
	}
	prepare := []string{"/usr/local/bin/init-storage", "--dir", "/app/data:2770::3000", "--verify-writable"}
	code, log := run(nil, prepare...)
	assert.Equal(t, 125, code)
	for _, want := range []string{"make the directory /app/data: permission denied", "on /app (", "we are uid 65532, gid 65532", "effective none", "fsGroup: 65532"} {
		assert.Contains(t, log, want)
	}
	code, log = run(nil, "/usr/local/bin/init-storage", "--dir", "/other/data")
	assert.Equal(t, 125, code)
	assert.Contains(t, log, "read-only file system")
	assert.Contains(t, log, "mount a volume there")
	// What fsGroup does, by hand.
	code, log = run([]string{"--user", "0:0", "--cap-add", "CHOWN", "--cap-add", "FOWNER", "--cap-add", "FSETID"}, "/usr/local/bin/init-storage", "--dir", "/app:2775:0:3000")
	require.Equal(t, 0, code, log)
	code, log = run([]string{"--group-add", "3000"}, prepare...)
	assert.Equal(t, 0, code, log)
	assert.Contains(t, log, "owner=65532:3000")
}
