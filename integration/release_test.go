// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// workflow is what there is to hold of a GitHub workflow.
type workflow struct {
	Permissions map[string]string `yaml:"permissions"`
	Jobs        map[string]struct {
		Permissions    map[string]string `yaml:"permissions"`
		TimeoutMinutes int               `yaml:"timeout-minutes"`
		Uses           string            `yaml:"uses"`
		Steps          []struct {
			Uses string         `yaml:"uses"`
			Run  string         `yaml:"run"`
			With map[string]any `yaml:"with"`
		} `yaml:"steps"`
	} `yaml:"jobs"`
}

// mayWrite are the permissions of jobs that may change something.
var mayWrite = map[string][]string{"release": {"contents", "id-token", "packages"}}

// TestWorkflows: what runs with the project's rights is named by its content,
// and has no more rights than it needs.
func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob("../.github/workflows/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	pinned := regexp.MustCompile(`^[\w-]+/[\w./-]+@[0-9a-f]{40}$`)
	versioned := regexp.MustCompile(`uses: \S+@[0-9a-f]{40} # v\d+(\.\d+){2}$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var w workflow
		require.NoError(t, yaml.Unmarshal(text, &w), file)
		require.NotEmpty(t, w.Jobs, file)
		assert.NotNil(t, w.Permissions, "%s: no permissions at the top means the repository's default", file)
		assert.Empty(t, w.Permissions, "%s: permissions belong to the job that needs them", file)
		for name, job := range w.Jobs {
			where := filepath.Base(file) + ", job " + name
			assert.Empty(t, job.Uses, "%s: a workflow of others", where)
			assert.NotNil(t, job.Permissions, "%s: no permissions", where)
			assert.Positive(t, job.TimeoutMinutes, "%s: no timeout-minutes", where)
			var writes []string
			for scope, access := range job.Permissions {
				if access != "read" {
					writes = append(writes, scope)
				}
			}
			assert.ElementsMatch(t, mayWrite[name], writes, "%s: may write", where)
			require.NotEmpty(t, job.Steps, where)
			for _, step := range job.Steps {
				if step.Uses != "" {
					assert.Regexp(t, pinned, step.Uses, where)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") {
					assert.Equal(t, false, step.With["persist-credentials"], "%s: the token stays in .git", where)
				}
				// What somebody else has chosen, such as a branch's name, is no part of a script.
				assert.NotContains(t, step.Run, "${{ github.", where)
			}
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "uses:") {
				assert.Regexp(t, versioned, strings.TrimSpace(line), "%s: which version is that?", file)
			}
		}
	}
}

// TestReleaseBuildsEverything: every command, with the flags of the Makefile, for
// the Makefile's architectures, and an image of the same.
func TestReleaseBuildsEverything(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join("..", name))
		require.NoError(t, err)
		return string(text)
	}
	var release struct {
		Builds []struct {
			ID, Main, Binary             string
			Env, Flags, Ldflags, Targets []string
		}
		DockersV2 []struct {
			Platforms  []string
			Dockerfile string
		} `yaml:"dockers_v2"`
	}
	require.NoError(t, yaml.Unmarshal([]byte(read(".goreleaser.yaml")), &release))
	makefile := read("Makefile")

	arches := strings.Fields(regexp.MustCompile(`(?m)^ARCHES\s*=(.*)$`).FindStringSubmatch(makefile)[1])
	targets, platforms := map[string]bool{}, map[string]bool{}
	for _, arch := range arches {
		if arch == "arm" {
			targets["linux_arm_7"], platforms["linux/arm/v7"] = true, true
			continue
		}
		targets["linux_"+arch], platforms["linux/"+arch] = true, true
	}

	mains, err := filepath.Glob("../cmd/*/main.go")
	require.NoError(t, err)
	var commands, built []string
	for _, file := range mains {
		commands = append(commands, filepath.Base(filepath.Dir(file)))
	}
	build := regexp.MustCompile(`(?m)^BUILD\s*=\s*(\S+) \$\(GO\) build (.*) -ldflags "(.*)"$`).FindStringSubmatch(makefile)
	require.NotNil(t, build, "the BUILD line of the Makefile")
	for _, b := range release.Builds {
		built = append(built, b.Binary)
		assert.Equal(t, b.ID, b.Binary)
		assert.Equal(t, "./cmd/"+b.Binary, b.Main)
		assert.Equal(t, []string{build[1]}, b.Env, b.ID)
		assert.Equal(t, strings.Fields(build[2]), b.Flags, b.ID)
		assert.Equal(t, []string{strings.ReplaceAll(build[3], "$(VERSION)", "{{ .Tag }}")}, b.Ldflags, b.ID)
		assert.ElementsMatch(t, slices.Collect(maps.Keys(targets)), b.Targets, b.ID)
	}
	assert.ElementsMatch(t, commands, built)

	require.Len(t, release.DockersV2, 1)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(platforms)), release.DockersV2[0].Platforms)
	// The image of a release has the links and the settings of the one from source.
	last := regexp.MustCompile(`(?m)^(USER|STOPSIGNAL|ENTRYPOINT) .*$`)
	ours, theirs := read("Dockerfile"), read(release.DockersV2[0].Dockerfile)
	for _, dockerfile := range []string{ours, theirs} {
		assert.Contains(t, dockerfile, "\nCOPY cmd/links/ /usr/local/bin/\n")
	}
	assert.Equal(t, last.FindAllString(ours, -1), last.FindAllString(theirs, -1))
	assert.Len(t, last.FindAllString(ours, -1), 3)
}

// TestReleaseToolchain: a release is built with the Go that go.mod names as its
// toolchain. Without that line setup-go installs the oldest Go that the project
// builds with, and with it the known vulnerabilities of that.
func TestReleaseToolchain(t *testing.T) {
	mod, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^toolchain go(\d+\.\d+)\.\d+$`).FindSubmatch(mod)
	require.NotNil(t, line, "go.mod: a toolchain with its patch version")
	series := string(line[1])
	for file, want := range map[string]string{
		"Dockerfile":                    "FROM golang:" + series + " AS build",
		"examples/docker/go/Dockerfile": "FROM golang:" + series + " AS build",
		".github/workflows/ci.yml":      "image: golang:" + series + "-bookworm",
		".github/workflows/release.yml": "go-version-file: go.mod",
	} {
		text, err := os.ReadFile(filepath.Join("..", file))
		require.NoError(t, err)
		assert.Contains(t, string(text), want, file)
	}
}

// TestLinks: the names that a binary goes by besides its own lead to one.
func TestLinks(t *testing.T) {
	links, err := filepath.Glob("../cmd/links/*")
	require.NoError(t, err)
	require.Len(t, links, 2)
	for _, link := range links {
		to, err := os.Readlink(link)
		require.NoError(t, err)
		text, err := os.ReadFile(filepath.Join("..", "cmd", to, "main.go"))
		require.NoError(t, err, "%s is a link to no command", link)
		assert.Contains(t, string(text), `p.Name == "`+filepath.Base(link)+`"`, "%s does not know that name", to)
	}
}
