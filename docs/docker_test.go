// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// engineMissing says why no Docker Engine can be used, or is empty.
var engineMissing = sync.OnceValue(func() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "docker", "info").CombinedOutput(); err != nil {
		return fmt.Sprintf("no Docker Engine answers: docker info: %v: %.200s", err, out)
	}
	return ""
})

var (
	from     = regexp.MustCompile(`(?m)^FROM \S+`)
	fromOurs = regexp.MustCompile(`--from=\S*cleanimg-init\S*`)
)

// buildDockerfile builds one, with the files of the page. Our image is made
// from the programs under test; it also is the base, so that no registry is
// asked.
func buildDockerfile(t *testing.T, dir, text string) {
	if why := engineMissing(); why != "" {
		t.Skip(why)
	}
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ".", "-").Replace(filepath.Base(dir) + "-" + t.Name()))
	ours := fmt.Sprintf("docs-ours-%d-%s", os.Getpid(), name)
	build(t, binDir, ours, "FROM scratch\nCOPY . /usr/local/bin/\n")
	text = fromOurs.ReplaceAllString(text, "--from="+ours)
	if from.MatchString(text) {
		text = from.ReplaceAllString(text, "FROM "+ours)
	} else {
		text = "FROM " + ours + "\n" + text
	}
	build(t, dir, fmt.Sprintf("docs-%d-%s", os.Getpid(), name), text)
}

// build makes an image for the time of the test.
func build(t *testing.T, context, tag, dockerfile string) {
	cmd := exec.Command("docker", "build", "--quiet", "--tag", tag, "--file", "-", context)
	cmd.Stdin = strings.NewReader(dockerfile)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, dockerfile)
	t.Cleanup(func() { _ = exec.Command("docker", "image", "rm", "--force", tag).Run() })
}
