// SPDX-License-Identifier: Apache-2.0

package config

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// roles are the programs that the test binary can pretend to be.
var roles = map[string]func(args []string) error{
	"locked":  func(args []string) error { return inReadOnlyFile(args[0], args[1], args[2]) },
	"mounted": func(args []string) error { return inMountedFile(args[0], args[1], args[2]) },
	"once":    func(args []string) error { return renderOnce(args[0], args[1]) },
	"torn":    func(args []string) error { return inTornFile(args[0], args[1], args[2]) },
	"render":  func(args []string) error { return renderLoop(args[0], args[1], args[2] == "atomic") },
}

func TestMain(m *testing.M) {
	name, args, ok := strings.Cut(os.Getenv("CONFIG_TEST_ROLE"), "\n")
	if !ok {
		os.Exit(m.Run())
	}
	if err := roles[name](strings.Split(args, "\n")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// role is the test binary in a role, in new namespaces if there are flags.
func role(t *testing.T, namespaces uintptr, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{"CONFIG_TEST_ROLE=" + name + "\n" + strings.Join(args, "\n"), "TMPDIR=" + t.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: syscall.SIGKILL}
	if namespaces != 0 && os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// renderOnce writes the output.
func renderOnce(templates, out string) error {
	output, err := Render(context.Background(), Options{TemplateDir: templates, OutputDir: out})
	if err != nil {
		return err
	}
	_, err = output.Commit(context.Background())
	return err
}

// renderLoop writes the output again and again, with another variable each
// time, until it is killed. It prints a line before the first time.
func renderLoop(templates, out string, atomic bool) error {
	fmt.Println("ready")
	for generation := 0; ; generation++ {
		o := Options{TemplateDir: templates, OutputDir: out, AtomicDir: atomic, Environ: []string{fmt.Sprintf("GENERATION=%d-%d", os.Getpid(), generation)}}
		output, err := Render(context.Background(), o)
		if err != nil {
			return err
		}
		if _, err := output.Commit(context.Background()); err != nil {
			return err
		}
	}
}
