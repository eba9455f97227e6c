// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/cleanstart-dev/cleanimg-init/integration/dbtest"
)

// What the databases' own tools write is a migration: with settings of the
// session, functions, triggers, locked tables.
func TestDumpsAreMigrations(t *testing.T) {
	t.Parallel()
	t.Run("pg_dump", func(t *testing.T) {
		t.Parallel()
		server, from := dbtest.Postgres(t), dbtest.NewPostgres(t)
		u, err := url.Parse(from)
		require.NoError(t, err)
		server.Psql(t, u.Path[1:], `CREATE TYPE mood AS ENUM ('a;b', 'c');
			CREATE TABLE t (id serial PRIMARY KEY, m mood DEFAULT 'c', note text DEFAULT E'it''s;\n');
			CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $x$ BEGIN NEW.note := 'x;y'; RETURN NEW; END; $x$;
			CREATE FUNCTION g(n int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN n > 1 THEN 1 ELSE 2 END; SELECT 3; END;
			CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
			COMMENT ON TABLE t IS 'a -- b /* c'; INSERT INTO t DEFAULT VALUES;`)
		dump, err := exec.Command(filepath.Join(server.Binary, "pg_dump"), "--inserts", "-h", "127.0.0.1", "-p", strconv.Itoa(server.Port), "-U", "postgres", u.Path[1:]).Output()
		require.NoError(t, err)
		b := newBench(t, dbtest.NewPostgres(t), write(t, map[string]string{"1_dump.sql": string(dump), "2_more.sql": "INSERT INTO t DEFAULT VALUES;"}))
		_, err = b.up(0)
		require.NoError(t, err)
		assert.Equal(t, "1|c|x;y\n2|c|x;y", b.query("SELECT * FROM t ORDER BY id"))
		assert.Equal(t, "3", b.query("SELECT g(1)"))
	})
	t.Run("mariadb-dump", func(t *testing.T) {
		t.Parallel()
		server, from := dbtest.MariaDB(t), dbtest.NewMariaDB(t)
		server.Mariadb(t, from, `CREATE TABLE t (id int auto_increment PRIMARY KEY, note varchar(40) DEFAULT 'it\'s;"');
			CREATE TABLE u (t int, FOREIGN KEY (t) REFERENCES t (id));
			INSERT INTO t VALUES (1, '-- a; \\'), (2, '# b'); INSERT INTO u VALUES (1);
			CREATE VIEW v AS SELECT id FROM t;
			DELIMITER //
			CREATE PROCEDURE p() BEGIN IF 1 THEN INSERT INTO t (note) VALUES ('p;'); END IF; END//
			CREATE TRIGGER tr BEFORE INSERT ON u FOR EACH ROW BEGIN SET NEW.t = CASE WHEN NEW.t = 7 THEN 2 ELSE NEW.t END; END//`)
		dump, err := exec.Command("mariadb-dump", "--no-defaults", "-S", server.Socket(), "-u", "root", "--routines", from).Output()
		require.NoError(t, err)
		b := newBench(t, mariadbURL(t, dbtest.NewMariaDB(t)), write(t, map[string]string{"1_dump.sql": string(dump), "2_more.sql": "CALL p(); INSERT INTO u VALUES (7);"}))
		_, err = b.up(0)
		require.NoError(t, err)
		assert.Equal(t, `1|-- a; \`+"\n2|# b\n3|p;", b.query("SELECT * FROM t ORDER BY id"))
		assert.Equal(t, "1\n2", b.query("SELECT t FROM u ORDER BY t"))
	})
}
