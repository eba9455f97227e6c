// SPDX-License-Identifier: Apache-2.0

package await

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tags leave a protocol out each.
var tags = []string{"no_http", "no_postgres", "no_mysql", "no_redis", "no_kafka", "no_amqp", "no_nats", "no_mongodb"}

func TestBuildTags(t *testing.T) {
	t.Parallel()
	for _, tag := range tags {
		out, err := exec.Command("go", "build", "-tags", tag, ".").CombinedOutput()
		assert.NoError(t, err, "%s: %s", tag, out)
	}
	small := filepath.Join(t.TempDir(), "await")
	all := strings.Join(tags, ",")
	out, err := exec.Command("go", "build", "-tags", all, "-o", small, "../../cmd/await").CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command(small, "redis://cache").CombinedOutput()
	assert.Error(t, err)
	assert.Contains(t, string(out), `unknown scheme "redis", this build has tcp, unix, file, dns, exec`)
	deps, err := exec.Command("go", "list", "-deps", "-tags", all, "../../cmd/await").Output()
	require.NoError(t, err)
	for _, heavy := range []string{"net/http", "github.com/twmb/franz-go/pkg/kgo", "github.com/jackc/pgx/v5/pgconn"} {
		assert.NotContains(t, strings.Fields(string(deps)), heavy)
	}
}
