// SPDX-License-Identifier: Apache-2.0

// Package docs is what users read. Its tests run what the pages show, follow
// their links, and keep reference.md as the programs are.
//
// A code block is judged by its language; see TestBlocks. One that can't be run
// says why in a comment on the line before it; one that needs the source is run
// in a copy of it:
//
//	<!-- not run: needs a cluster -->
//	<!-- run in the source -->
package docs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

var update = flag.Bool("update", false, "write what is generated into reference.md")

// binDir has every program of ../cmd, and the links that the image has.
var binDir string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	if binDir, err = os.MkdirTemp("", "docs-bin-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(binDir)
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binDir+"/", "../cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build ../cmd/...: %w\n%s", err, out)
	}
	for link, program := range map[string]string{"validate-config": "generate-config", "check-deps": "await"} {
		if err := os.Symlink(program, filepath.Join(binDir, link)); err != nil {
			return 1, err
		}
	}
	defer removeImages()
	return m.Run(), nil
}

// A page is a Markdown file, parsed as GitHub does.
type page struct {
	path string // from here: ../README.md
	src  []byte
	root ast.Node
}

// pages are all that users read: those here, of the root, and of the examples.
func pages(t *testing.T) (all []page) {
	t.Helper()
	paths, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, pattern := range []string{"../*.md", "../examples/*.md", "../examples/*/*.md", "../examples/*/*/*.md", "../.github/*.md"} {
		more, err := filepath.Glob(pattern)
		require.NoError(t, err)
		paths = append(paths, more...)
	}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		require.NoError(t, err)
		markdown := goldmark.New(goldmark.WithExtensions(extension.GFM))
		all = append(all, page{path: path, src: src, root: markdown.Parser().Parse(text.NewReader(src))})
	}
	return all
}

// walk calls visit for each node of the page.
func (p page) walk(visit func(ast.Node)) {
	_ = ast.Walk(p.root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if entering {
			visit(n)
		}
		return ast.WalkContinue, nil
	})
}

// line is the number of the line at an offset.
func (p page) line(offset int) int { return strings.Count(string(p.src[:offset]), "\n") + 1 }

// A block is a piece of code on a page.
type block struct {
	lang   string // of its fence; none for an indented block
	file   string // the word after the language: the file that the block is
	text   string
	notRun string // why it is not run
	source bool   // run in a copy of the source
	line   int
}

func (p page) blocks() (all []block) {
	p.walk(func(n ast.Node) {
		if n.Kind() != ast.KindFencedCodeBlock && n.Kind() != ast.KindCodeBlock || n.Lines().Len() == 0 {
			return
		}
		b := block{text: string(n.Lines().Value(p.src)), line: p.line(n.Lines().At(0).Start)}
		if fence, ok := n.(*ast.FencedCodeBlock); ok && fence.Info != nil {
			b.lang, b.file, _ = strings.Cut(string(fence.Info.Value(p.src)), " ")
		}
		if comment, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
			said := string(comment.Lines().Value(p.src))
			_, reason, _ := strings.Cut(said, "<!-- not run: ")
			b.notRun, _, _ = strings.Cut(reason, "-->")
			b.notRun = strings.TrimSpace(b.notRun)
			b.source = strings.Contains(said, "<!-- run in the source -->")
		}
		all = append(all, b)
	})
	return all
}
