// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/yuin/goldmark/ast"
)

var (
	testName = regexp.MustCompile(`\b([a-z]+)\.((?:Test|Fuzz)\w+)`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// TestTestsExist looks for the tests that the pages name, as reaper.TestStorm or
// with a link to the file.
func TestTestsExist(t *testing.T) {
	byPackage := map[string][]string{}
	files, err := filepath.Glob("../*/*_test.go")
	require.NoError(t, err)
	deeper, err := filepath.Glob("../*/*/*_test.go")
	require.NoError(t, err)
	for _, file := range append(files, deeper...) {
		pkg := filepath.Base(filepath.Dir(file))
		byPackage[pkg] = append(byPackage[pkg], testsOf(t, file)...)
	}
	for _, p := range pages(t) {
		for _, m := range testName.FindAllStringSubmatch(string(p.src), -1) {
			assert.Contains(t, byPackage[m[1]], m[2], "%s names %s, which there is not", p.path, m[0])
		}
		p.walk(func(n ast.Node) {
			link, ok := n.(*ast.Link)
			if !ok {
				return
			}
			if name := headingText(n, p.src); strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
				file := filepath.Join(filepath.Dir(p.path), string(link.Destination))
				assert.NoError(t, hasTest(file, name), "%s has a link to %s", p.path, name)
			}
		})
	}
}

func testsOf(t *testing.T, file string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	return names
}

// hasTest looks for a test in a file. TestGuest/Jump is a part of TestGuest,
// which may be in another file, and the file has guestJump.
func hasTest(file, name string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	function := name
	if test, part, ok := strings.Cut(name, "/"); ok {
		function = strings.ToLower(test[4:5]) + test[5:] + part
	}
	if !strings.Contains(string(text), "\nfunc "+function+"(") {
		return fmt.Errorf("%s has no %s", file, function)
	}
	return nil
}

func TestHasTest(t *testing.T) {
	assert.NoError(t, hasTest("named_test.go", "TestHasTest"))
	assert.Error(t, hasTest("named_test.go", "TestHas"))
	assert.Error(t, hasTest("links_test.go", "TestHasTest"))
	assert.NoError(t, hasTest("../integration/guest_jump_test.go", "TestGuest/Jump"))
	assert.Error(t, hasTest("../integration/guest_jump_test.go", "TestGuest/Fly"))
}

// TestCommandsInText looks at the commands that are not run because they stand
// in a line of text, or in a block that says why: what they name must be there.
func TestCommandsInText(t *testing.T) {
	known := ours(t)
	checked := 0
	for _, p := range pages(t) {
		judge := func(command string) {
			words, err := wordsOf(command)
			if err != nil || len(words) == 0 {
				return
			}
			if check := known[words[0]]; check != nil {
				checked++
				assert.NoError(t, check(words[1:]), "%s: %s", p.path, command)
			}
		}
		p.walk(func(n ast.Node) {
			if n.Kind() == ast.KindCodeSpan {
				judge(headingText(n, p.src))
			}
		})
		for _, b := range p.blocks() {
			if b.notRun == "" || b.lang != "sh" && b.lang != "console" {
				continue
			}
			for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", "")) {
				judge(strings.TrimPrefix(strings.TrimSpace(line), "$ "))
			}
		}
	}
	assert.Greater(t, checked, 100)
}

// wordsOf splits a command as a shell does, where that is simple.
func wordsOf(command string) (words []string, err error) {
	word, open, quote := "", false, rune(0)
	for _, r := range command + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open {
				words = append(words, word)
			}
			word, open = "", false
		default:
			word, open = word+string(r), true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is open in %s", command)
	}
	for len(words) > 0 && regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0]) {
		words = words[1:]
	}
	return words, nil
}

// ours are the commands that are known here, and what to check of each.
func ours(t *testing.T) map[string]func(words []string) error {
	t.Helper()
	known := map[string]func([]string) error{"go": goCommand, "make": makeCommand(t)}
	entries, err := os.ReadDir(binDir)
	require.NoError(t, err)
	for _, e := range entries {
		help := helpOf(t, e.Name())
		known[e.Name()] = func(words []string) error {
			for _, word := range words {
				name, _, _ := strings.Cut(word, "=")
				if word == "--" {
					break
				}
				if strings.HasPrefix(name, "--") && !hasOption(help, name) {
					return fmt.Errorf("%s is no option", name)
				}
			}
			return nil
		}
	}
	return known
}

var settingLine = regexp.MustCompile(`(?m)^  ([A-Z_]+) `)

// hasOption reports whether a program has an option: its help names it, or it is
// that of one of cleanimg-init's variables.
func hasOption(help, option string) bool {
	if regexp.MustCompile(regexp.QuoteMeta(option) + `(?:[^a-z0-9-]|$)`).MatchString(help) {
		return true
	}
	for _, m := range settingLine.FindAllStringSubmatch(help, -1) {
		if option == "--"+strings.ToLower(strings.ReplaceAll(m[1], "_", "-")) && m[1] != "HTTP_LISTEN" {
			return true
		}
	}
	return false
}

var (
	makeTarget   = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
	makeVariable = regexp.MustCompile(`(?m)^([A-Z]+) *\??=`)
)

// makeCommand checks that a target, and a variable that is given, are in the
// Makefile.
func makeCommand(t *testing.T) func(words []string) error {
	makefile, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	return func(words []string) error {
		for _, word := range words {
			names, kind := makeTarget, "target"
			name, _, assigned := strings.Cut(word, "=")
			if assigned {
				names, kind = makeVariable, "variable"
			}
			if !slices.ContainsFunc(names.FindAllStringSubmatch(string(makefile), -1), func(m []string) bool { return m[1] == name }) {
				return fmt.Errorf("the Makefile has no %s %s", kind, name)
			}
		}
		return nil
	}
}

// CONTRIBUTING.md has every target of the Makefile, but the list of them.
func TestEveryTargetIsShown(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	page, err := os.ReadFile("../CONTRIBUTING.md")
	require.NoError(t, err)
	for _, m := range makeTarget.FindAllStringSubmatch(string(makefile), -1) {
		if m[1] != "help" {
			assert.Regexp(t, "(?m)^\\| `make "+m[1]+"[ `]", string(page))
		}
	}
}

var (
	testFlag = regexp.MustCompile(`flag\.[A-Z]\w+\("([a-z]+)"`)
	// Those of go test itself; true: a value follows.
	goTestFlags = map[string]bool{"-v": false, "-race": false, "-short": false, "-run": true, "-count": true, "-timeout": true}
)

// goCommand checks the packages of go test, go run and go build, and of go test
// the names that -run has and the flags.
func goCommand(words []string) error {
	if len(words) < 2 || !slices.Contains([]string{"test", "run", "build"}, words[0]) {
		return nil
	}
	var folders, wanted, flags []string
	for i := 1; i < len(words); i++ {
		word, value, _ := strings.Cut(words[i], "=")
		switch takes, standard := goTestFlags[word]; {
		case strings.HasPrefix(word, "./"):
			folders = append(folders, word)
		case words[0] != "test" || word == "NAME":
		case !strings.HasPrefix(word, "-"): // the value of a flag
		case !standard:
			flags = append(flags, word[1:])
		case takes && value == "" && i+1 < len(words):
			if i++; word == "-run" {
				wanted = append(wanted, words[i])
			}
		}
	}
	var tests, declared []string
	for _, folder := range folders {
		files, err := filepath.Glob(path.Join("..", folder, "*.go"))
		if err != nil || len(files) == 0 && !strings.HasSuffix(folder, "...") {
			return fmt.Errorf("%s has no Go files", folder)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
				tests = append(tests, m[1])
			}
			for _, m := range testFlag.FindAllStringSubmatch(string(text), -1) {
				declared = append(declared, m[1])
			}
		}
	}
	for _, pattern := range wanted {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		if pattern != "NAME" && !slices.ContainsFunc(tests, re.MatchString) {
			return fmt.Errorf("no test in %s is called %s", folders, pattern)
		}
	}
	for _, name := range flags {
		if !slices.Contains(declared, name) {
			return fmt.Errorf("the tests in %s have no flag -%s", folders, name)
		}
	}
	return nil
}

func TestGoCommand(t *testing.T) {
	known := ours(t)
	for command, problem := range map[string]string{
		"go test ./docs -run '^TestGoCommand$' -v -update": "",
		"go run ./integration/bench":                       "",
		"go test ./docs -run '^TestGo$'":                   "no test in [./docs] is called ^TestGo$",
		"go test ./docs -updat":                            "have no flag -updat",
		"go test ./nowhere":                                "./nowhere has no Go files",
		"make test FUZZTIME=1m":                            "",
		"make tests":                                       "no target tests",
		"make fuzz FUZZTIM=1m":                             "no variable FUZZTIM",
		"await --timeout 3 -- app --what":                  "",
		"await --timout=3 x":                               "--timout is no option",
		"migrate --lock 3 up":                              "--lock is no option",
		"A=b cleanimg-init --step-timeout 3 --no-hooks":    "",
		"cleanimg-init --http-listen x":                    "--http-listen is no option",
	} {
		words, err := wordsOf(command)
		require.NoError(t, err)
		err = known[words[0]](words[1:])
		if problem == "" {
			assert.NoError(t, err, command)
		} else {
			assert.ErrorContains(t, err, problem, command)
		}
	}
}
