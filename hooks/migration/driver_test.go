// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-migrate/migrate/v4"
	gmtesting "github.com/golang-migrate/migrate/v4/database/testing"
	_ "github.com/golang-migrate/migrate/v4/source/file"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// databases are URLs of empty databases, one of each kind.
var databases = map[string]func(*testing.T) string{
	"postgres": func(t *testing.T) string { return dbtest.NewPostgres(t) },
	"mariadb":  func(t *testing.T) string { return mariadbURL(t, dbtest.NewMariaDB(t)) },
	"sqlite":   func(t *testing.T) string { return "sqlite://" + filepath.Join(t.TempDir(), "app.db") },
}

func mariadbURL(t *testing.T, name string) string {
	return "mysql://root@unix(" + dbtest.MariaDB(t).Socket() + ")/" + name
}

// golang-migrate's own suite for drivers.
func TestGolangMigrateDriverSuite(t *testing.T) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := OpenDriver(t.Context(), Options{Database: database(t), LockTimeout: time.Minute})
			require.NoError(t, err)
			defer d.Close()
			gmtesting.Test(t, d, []byte("CREATE TABLE t (qty int, name varchar(10)); INSERT INTO t VALUES (1, 'a;b');"))
		})
	}
}

// The same with its engine on top, and its file source.
func TestGolangMigrateEngineSuite(t *testing.T) {
	t.Parallel()
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := write(t, map[string]string{
				"1_users.up.sql": "CREATE TABLE users (id int primary key);", "1_users.down.sql": "DROP TABLE users;",
				"2_more.up.sql": "ALTER TABLE users ADD COLUMN name varchar(10); INSERT INTO users VALUES (1, 'x');", "2_more.down.sql": "SELECT 1;",
			})
			d, err := OpenDriver(t.Context(), Options{Database: database(t), LockTimeout: time.Minute})
			require.NoError(t, err)
			m, err := migrate.NewWithDatabaseInstance("file://"+dir, name, d)
			require.NoError(t, err)
			gmtesting.TestMigrate(t, m)
			m.Close()
		})
	}
}
