// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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

	oneBuild sync.Mutex
	images   []string // that were built, for removeImages
)

// ourImage is the project's image, made from the programs under test, and
// emptyImage the base of everything, so that no registry is asked.
var (
	ourImage   = sync.OnceValues(func() (string, error) { return build(binDir, "ours", "FROM scratch\nCOPY . /usr/local/bin/\n") })
	emptyImage = sync.OnceValues(func() (string, error) { return build(".", "empty", "FROM scratch\nLABEL empty=yes\n") })
)

// buildDockerfile builds one, with the files of the page. A piece that copies
// nothing from our image goes on where one that did has ended. (Nothing is
// copied twice: Docker's classic builder fails over an empty layer.)
func buildDockerfile(t *testing.T, dir, text string) {
	if why := engineMissing(); why != "" {
		t.Skip(why)
	}
	oneBuild.Lock()
	defer oneBuild.Unlock()
	ours, err := ourImage()
	require.NoError(t, err)
	base := ours
	if fromOurs.MatchString(text) {
		base, err = emptyImage()
		require.NoError(t, err)
	}
	if text = fromOurs.ReplaceAllString(text, "--from="+ours); from.MatchString(text) {
		text = from.ReplaceAllString(text, "FROM "+base)
	} else {
		text = "FROM " + base + "\n" + text
	}
	_, err = build(dir, fmt.Sprint(len(images)), text)
	require.NoError(t, err)
}

// build makes an image with the files of a folder.
func build(context, name, dockerfile string) (tag string, err error) {
	tag = fmt.Sprintf("cleanimg-init-docs/%d:%s", os.Getpid(), name)
	cmd := exec.Command("docker", "build", "--quiet", "--tag", tag, "--file", "-", context)
	cmd.Stdin = strings.NewReader(dockerfile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("docker build: %w\n%s\n%s", err, out, dockerfile)
	}
	images = append(images, tag)
	return tag, nil
}

func removeImages() {
	for i := len(images) - 1; i >= 0; i-- {
		_ = exec.Command("docker", "image", "rm", "--force", images[i]).Run()
	}
}
