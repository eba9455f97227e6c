// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDockerJava runs the image of examples/docker/java on this machine's JVM.
func TestDockerJava(t *testing.T) {
	const java = "/usr/bin/java"
	needDocker(t, java)
	t.Parallel()
	image := newExampleImages(t).java(java)
	c := startContainer(t, image, []string{"--publish", "127.0.0.1::8080", "--memory", "256m"})
	c.prober().becomes("/health/ready", 200)
	c.prober().answers(200, 200, 200)
	assert.Equal(t, "hello from java\n", httpBody("http://"+c.address(8080)+"/"))

	docker(t, "kill", "--signal", "QUIT", c.name) // no stop signal
	require.Eventually(t, func() bool { return strings.Contains(c.log(), "Full thread dump") }, patience, 100*time.Millisecond)
	c.prober().answers(200, 200, 200)

	code, _ := c.stop()
	assert.Equal(t, 143, code, "the JVM's own code after TERM")
	assert.Contains(t, c.log(), "drained")
}

// java is built on a JRE of this machine's files. A JRE of Debian's has the
// compiler's module, but not its program.
func (e *exampleImages) java(java string) string {
	e.t.Helper()
	dir, out := e.withoutBuild("java")
	log, err := exec.Command(java, "-m", "jdk.compiler/com.sun.tools.javac.Main", "-d", out, filepath.Join(dir, "App.java")).CombinedOutput()
	require.NoError(e.t, err, "%s", log)

	base := newImageRoot(e.t)
	program, err := filepath.EvalSymlinks(java)
	require.NoError(e.t, err)
	home := filepath.Dir(filepath.Dir(program))
	for _, file := range []string{"bin/java", "lib/server/libjvm.so", "lib/libjava.so", "lib/libjimage.so", "lib/libnet.so", "lib/libnio.so", "lib/libextnet.so", "lib/libzip.so"} {
		base.program(filepath.Join(home, file))
	}
	base.tree(home, home, func(name string, dir bool) bool {
		return dir && (name == "jmods" || name == "include" || name == "legal" || name == "man" || name == "docs") || name == "lib/src.zip"
	})
	if conf, err := filepath.EvalSymlinks(filepath.Join(home, "conf", "security", "java.security")); err == nil {
		if etc := filepath.Dir(filepath.Dir(conf)); etc != filepath.Join(home, "conf") {
			base.tree(etc, etc, nil) // Debian has it in /etc
		}
	}
	base.link(java, program)
	base.imageNamed(e.name + "-java-base")
	return e.buildIn(dir, "java", "BASE="+e.name+"-java-base")
}
