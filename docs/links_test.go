// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark/ast"
)

// TestLinks follows every link to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	all := pages(t)
	anchors := map[string]map[string]bool{}
	for _, p := range all {
		anchors[filepath.Clean(p.path)] = p.anchors()
	}
	for _, p := range all {
		p.walk(func(n ast.Node) {
			var to string
			switch n := n.(type) {
			case *ast.Link:
				to = string(n.Destination)
			case *ast.Image:
				to = string(n.Destination)
			default:
				return
			}
			link, err := url.Parse(to)
			require.NoError(t, err, p.path)
			if link.Scheme != "" {
				return
			}
			target := filepath.Clean(p.path)
			if link.Path != "" {
				target = filepath.Join(filepath.Dir(p.path), link.Path)
				_, err := os.Stat(target)
				assert.NoError(t, err, "%s has a link to %s", p.path, to)
			}
			if link.Fragment != "" && anchors[target] != nil {
				assert.True(t, anchors[target][link.Fragment], "%s has a link to %s, which is no heading there", p.path, to)
			}
		})
	}
}

// TestREADMEShowsEveryPage: what is not linked from there is not found.
func TestREADMEShowsEveryPage(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	paths, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, path := range paths {
		assert.Contains(t, string(readme), "(docs/"+path, "README.md has no link to it: add it to the table of docs")
	}
}

// anchors are the names that GitHub gives to the headings of a page.
func (p page) anchors() map[string]bool {
	names := map[string]bool{}
	p.walk(func(n ast.Node) {
		if n.Kind() != ast.KindHeading {
			return
		}
		name := anchor(headingText(n, p.src))
		unique := name
		for i := 1; names[unique]; i++ {
			unique = name + "-" + strconv.Itoa(i)
		}
		names[unique] = true
	})
	return names
}

// headingText is a heading's text without its marks.
func headingText(n ast.Node, src []byte) (s string) {
	for child := n.FirstChild(); child != nil; child = child.NextSibling() {
		if leaf, ok := child.(*ast.Text); ok {
			s += string(leaf.Value(src))
		} else {
			s += headingText(child, src)
		}
	}
	return s
}

var noAnchor = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)

func anchor(heading string) string {
	return strings.ReplaceAll(noAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func TestAnchor(t *testing.T) {
	assert.Equal(t, "what-hooks-and-command-see", anchor("What hooks and command see"))
	assert.Equal(t, "status", anchor("/status"))
	assert.Equal(t, "tini--dumb-init-s6_overlay", anchor("tini / dumb-init, s6_overlay?"))
}

var variable = regexp.MustCompile(`\bCLEANIMG_INIT_[A-Z_]+\b`)

// TestVariablesExist finds variables in the docs that the reference does not
// know, which are most often spelled wrongly.
func TestVariablesExist(t *testing.T) {
	reference, err := os.ReadFile("reference.md")
	require.NoError(t, err)
	for _, p := range pages(t) {
		for _, name := range variable.FindAllString(string(p.src), -1) {
			setting := "`" + strings.TrimPrefix(name, "CLEANIMG_INIT_") + "`"
			known := strings.Contains(string(reference), setting) || strings.Contains(string(reference), "`"+name+"`")
			assert.True(t, known, "%s has %s, which is no variable in reference.md", p.path, name)
		}
	}
}
