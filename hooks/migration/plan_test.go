// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// stepsOf are the files of a plan.
func stepsOf(p plan) string {
	var names []string
	for _, s := range p.steps {
		names = append(names, s.file.name)
	}
	return strings.Join(names, " ")
}

func TestPlans(t *testing.T) {
	t.Parallel()
	all, err := readFiles(write(t, map[string]string{
		"1_a.up.sql": "SELECT 1;", "1_a.down.sql": "SELECT 1;", "2_b.up.sql": "SELECT 1; VACUUM;", "2_b.down.sql": "SELECT 1;", "3_c.up.sql": "SELECT 1;", "3_c.down.sql": "SELECT 1;",
	}))
	require.NoError(t, err)
	one, err := split(postgreSQL, "SELECT 1;")
	require.NoError(t, err)
	begun := func(version, previous int64, d direction, done int) record {
		return record{version: version, name: "x.sql", progress: between, direction: d, previous: previous, done: done, total: 2, doneSum: sumOf(one[:done])}
	}
	tests := map[string]struct {
		version     int64
		dirty       bool
		record      record
		up, down    string
		errUp, warn string
		errDown     string
	}{
		"new":                     {version: -1, up: "1_a.up.sql 2_b.up.sql 3_c.up.sql"},
		"in the middle":           {version: 2, up: "3_c.up.sql", down: "2_b.down.sql"},
		"newer database":          {version: 9, warn: "newer than the newest file", errDown: "nothing to go down by"},
		"a gap":                   {version: 0, up: "1_a.up.sql 2_b.up.sql 3_c.up.sql", warn: "has no file for", errDown: "nothing to go down by"},
		"begun":                   {version: 1, record: begun(2, 1, up, 1), up: "2_b.up.sql 3_c.up.sql", errDown: "begun and is incomplete (1 of 2 statements)"},
		"begun, marked":           {version: 2, dirty: true, record: begun(2, 1, up, 1), up: "2_b.up.sql 3_c.up.sql", errDown: "begun and is incomplete"},
		"begun, and put right":    {version: 2, record: begun(2, 1, up, 1), up: "3_c.up.sql", down: "2_b.down.sql"},
		"begun by a newer image":  {version: 3, record: begun(4, 3, up, 1), warn: "a newer image has begun version 4", errDown: "begun and is incomplete"},
		"half way down":           {version: 2, record: begun(2, 2, down, 1), errUp: "complete it with: down 1", down: "2_b.down.sql"},
		"half way down, marked":   {version: 1, dirty: true, record: begun(2, 2, down, 0), errUp: "complete it with: down 1", down: "2_b.down.sql"},
		"changed after the begin": {version: 1, record: record{version: 2, name: "x.sql", progress: between, direction: up, previous: 1, done: 1, total: 2, doneSum: "other"}, errUp: "have been changed since", errDown: "begun and is incomplete"},
		"marked by somebody":      {version: 2, dirty: true, errUp: "another tool has begun", errDown: "another tool has begun"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := state{version: tt.version, dirty: tt.dirty, history: map[int64]record{}}
			if tt.record.name != "" {
				st.history[tt.record.version] = tt.record
			}
			p := planner{dialect: postgreSQL, files: all}
			got, err := p.up(st, 0, math.MaxInt64)
			check(t, "up", got, err, tt.up, tt.errUp)
			if tt.warn != "" {
				assert.Contains(t, strings.Join(got.warnings, "; "), tt.warn)
			} else {
				assert.Empty(t, got.warnings)
			}
			got, err = p.down(st, 1, noVersion)
			check(t, "down", got, err, tt.down, tt.errDown)
		})
	}
}

func check(t *testing.T, what string, p plan, err error, steps, message string) {
	t.Helper()
	if message != "" {
		require.ErrorContains(t, err, message, what)
		return
	}
	require.NoError(t, err, what)
	assert.Equal(t, steps, stepsOf(p), what)
}

// The way down is resumed, too.
func TestDownIsResumed(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{"postgres": dbtest.NewPostgres(t), "mariadb": mariadbURL(t, dbtest.NewMariaDB(t))} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{
				"1_a.up.sql": "CREATE TABLE a (id int);", "1_a.down.sql": "DROP TABLE a;",
				"2_b.up.sql": "CREATE TABLE b (id int);", "2_b.down.sql": "-- migrate:no-transaction\nINSERT INTO a VALUES (1);\nDROP TABLE b;\nDROP TABLE nowhere;",
			})
			b := newBench(t, target, dir)
			_, err := b.up(0)
			require.NoError(t, err)
			_, err = b.down(1)
			require.ErrorContains(t, err, "2_b.down.sql:4")
			assert.Equal(t, "1:applied 2:incomplete", b.states())
			_, err = b.up(0)
			require.ErrorContains(t, err, "complete it with: down 1")
			put(t, dir, map[string]string{"2_b.down.sql": "-- migrate:no-transaction\nINSERT INTO a VALUES (1);\nDROP TABLE b;\nSELECT 1;"})
			_, err = b.resume(false)
			require.NoError(t, err)
			assert.Equal(t, "1", b.version())
			assert.Equal(t, "1:applied 2:pending", b.states())
			assert.Equal(t, "1", b.query("SELECT count(*) FROM a"))
			_, err = b.down(-1)
			require.NoError(t, err)
			assert.Equal(t, "-1", b.version())
		})
	}
}
