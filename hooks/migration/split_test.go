// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	all := []dialect{postgreSQL, mySQL, sqlite}
	tests := map[string]struct {
		dialects []dialect
		text     string
		want     []string // line:text
	}{
		"nothing":           {all, " \n\t;; -- only\n /* comments */ ;", nil},
		"two":               {all, "SELECT 1;\n\n  SELECT 2", []string{"1:SELECT 1", "3:SELECT 2"}},
		"strings":           {all, "SELECT 'a;''b;', 2;SELECT ';'", []string{"1:SELECT 'a;''b;', 2", "1:SELECT ';'"}},
		"identifiers":       {[]dialect{postgreSQL, sqlite}, `SELECT "a;""b";SELECT 2`, []string{`1:SELECT "a;""b"`, "1:SELECT 2"}},
		"comments":          {all, "-- a;'b\nSELECT /* ;' */ 1 -- x;\n, 2; -- y;\nSELECT 3 /* end */", []string{"2:SELECT /* ;' */ 1 -- x;\n, 2", "4:SELECT 3"}},
		"windows":           {all, "\ufeffSELECT 1;\r\nSELECT 2;\r\n", []string{"1:SELECT 1", "2:SELECT 2"}},
		"no backslashes":    {[]dialect{postgreSQL, sqlite}, `SELECT '\'; SELECT 2`, []string{`1:SELECT '\'`, "1:SELECT 2"}},
		"backslashes":       {[]dialect{mySQL}, `SELECT '\';', "\";"; SELECT 2`, []string{`1:SELECT '\';', "\";"`, "1:SELECT 2"}},
		"escape strings":    {[]dialect{postgreSQL}, `SELECT E'\';', e'\\'; SELECT name'\'; SELECT 2`, []string{`1:SELECT E'\';', e'\\'`, `1:SELECT name'\'`, "1:SELECT 2"}},
		"dollar quotes":     {[]dialect{postgreSQL}, "DO $$ BEGIN; $x$; END $$; SELECT $_a1$ $$;' $_a1$, a$b$c; SELECT $1;", []string{"1:DO $$ BEGIN; $x$; END $$", "1:SELECT $_a1$ $$;' $_a1$, a$b$c", "1:SELECT $1"}},
		"nested comments":   {[]dialect{postgreSQL}, "SELECT 1 /* a /* b; */ c; */; SELECT 2", []string{"1:SELECT 1", "1:SELECT 2"}},
		"flat comments":     {[]dialect{mySQL, sqlite}, "SELECT 1 /* a /* b; */; SELECT 2", []string{"1:SELECT 1", "1:SELECT 2"}},
		"rules":             {[]dialect{postgreSQL}, "CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2); SELECT 3", []string{"1:CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2)", "1:SELECT 3"}},
		"body of SQL":       {[]dialect{postgreSQL}, "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END; SELECT 2", []string{"1:CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END", "1:SELECT 2"}},
		"begin is a name":   {[]dialect{postgreSQL}, "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT 2", []string{"1:CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1'", "1:SELECT 2"}},
		"hash and dashes":   {[]dialect{mySQL}, "SELECT 1 # a;'\n, 5--1; SELECT 2 -- b;\n", []string{"1:SELECT 1 # a;'\n, 5--1", "2:SELECT 2"}},
		"backticks":         {[]dialect{mySQL, sqlite}, "SELECT `a;``b`; SELECT 2", []string{"1:SELECT `a;``b`", "1:SELECT 2"}},
		"brackets":          {[]dialect{sqlite}, "SELECT [a;'b]; SELECT 2", []string{"1:SELECT [a;'b]", "1:SELECT 2"}},
		"trigger":           {[]dialect{mySQL, sqlite}, "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW BEGIN INSERT INTO b VALUES (1); UPDATE b SET x = CASE WHEN 1 THEN 2 END; END; SELECT 2", []string{"1:CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW BEGIN INSERT INTO b VALUES (1); UPDATE b SET x = CASE WHEN 1 THEN 2 END; END", "1:SELECT 2"}},
		"procedure":         {[]dialect{mySQL}, "CREATE DEFINER=`a`@`%` PROCEDURE p()\nBEGIN\n IF 1 THEN SELECT 1; END IF;\n CASE 1 WHEN 1 THEN SELECT 2; END CASE;\n l: LOOP LEAVE l; END LOOP;\nEND;\nSELECT 2", []string{"1:CREATE DEFINER=`a`@`%` PROCEDURE p()\nBEGIN\n IF 1 THEN SELECT 1; END IF;\n CASE 1 WHEN 1 THEN SELECT 2; END CASE;\n l: LOOP LEAVE l; END LOOP;\nEND", "7:SELECT 2"}},
		"delimiter":         {[]dialect{mySQL}, "DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; END//\ndelimiter $$\nSELECT 2; SELECT 3$$\nDELIMITER ;\nSELECT 4; SELECT 5", []string{"2:CREATE PROCEDURE p() BEGIN SELECT 1; END", "4:SELECT 2; SELECT 3", "6:SELECT 4", "6:SELECT 5"}},
		"executable":        {[]dialect{mySQL}, "/*!40101 SET NAMES utf8 */;\n/*!50003 CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET @a = 1; END */;\nSELECT 1", []string{"1:/*!40101 SET NAMES utf8 */", "2:/*!50003 CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW BEGIN SET @a = 1; END */", "3:SELECT 1"}},
		"compound":          {[]dialect{mySQL}, "BEGIN NOT ATOMIC SELECT 1; SELECT 2; END; SELECT 3", []string{"1:BEGIN NOT ATOMIC SELECT 1; SELECT 2; END", "1:SELECT 3"}},
		"transaction":       {all, "BEGIN; SELECT 1; END; SELECT 2", []string{"1:BEGIN", "1:SELECT 1", "1:END", "1:SELECT 2"}},
		"a table of events": {[]dialect{mySQL}, "CREATE TABLE event (begin int); SELECT 2", []string{"1:CREATE TABLE event (begin int)", "1:SELECT 2"}},
		"an unended note":   {[]dialect{sqlite}, "SELECT 1; /* to the end", []string{"1:SELECT 1"}},
	}
	for name, tt := range tests {
		for _, d := range tt.dialects {
			t.Run(fmt.Sprint(name, " ", d), func(t *testing.T) {
				t.Parallel()
				got, err := split(d, tt.text)
				require.NoError(t, err)
				var lines []string
				for _, s := range got {
					lines = append(lines, fmt.Sprintf("%d:%s", s.line, s.text))
				}
				assert.Equal(t, tt.want, lines)
			})
		}
	}
}

func TestSplitErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"SELECT 1;\nSELECT 'a;\n": "line 2: the string that begins here has no end",
		"SELECT \"a":              `line 1: the quoted identifier that begins here has no end`,
		"\n\nDO $x$ a $$":         "line 3: the string $x$… that begins here has no end",
		"SELECT 1 /* a":           "line 1: the comment that begins here has no end",
		"SELECT 1;\nCOPY a (b) FROM stdin;\n'1\n\\.\n": "line 2: COPY … FROM STDIN: the rows behind it are for psql",
		"COPY a FROM STDIN":                            "line 1: COPY … FROM STDIN",
		"SELECT 1;\n\\i other.sql\n":                   `line 2: \i is a command of psql`,
		"SELECT\x00":                                   "line 1: a NUL byte",
	} {
		_, err := split(postgreSQL, text)
		require.ErrorContains(t, err, want)
	}
	_, err := split(mySQL, "/*!40000 a")
	require.ErrorContains(t, err, "has no end")
}

// describe writes units as T(…) and N(…): in a transaction, and not.
func describe(list []unit) string {
	var b strings.Builder
	for i, u := range list {
		if i > 0 {
			b.WriteString(" ")
		}
		kind := "N"
		if u.transactional() {
			kind = "T"
		}
		fmt.Fprintf(&b, "%s%d+%d(", kind, u.first, u.size)
		for j, s := range u.statements {
			if j > 0 {
				b.WriteString("; ")
			}
			b.WriteString(s.text)
		}
		b.WriteString(")")
	}
	return b.String()
}

func TestUnits(t *testing.T) {
	t.Parallel()
	const create, index, vacuum, insert = "CREATE TABLE a", "CREATE UNIQUE INDEX CONCURRENTLY i ON a (b)", "VACUUM a", "INSERT INTO a"
	tests := []struct {
		dialect  dialect
		separate bool
		text     string
		want     string
	}{
		{postgreSQL, false, "", "T0+0()"},
		{postgreSQL, false, create + ";" + insert, "T0+2(" + create + "; " + insert + ")"},
		{postgreSQL, false, "SET x = 1; BEGIN; " + create + "; COMMIT; " + insert, "T0+5(SET x = 1; " + create + "; " + insert + ")"},
		{postgreSQL, false, create + ";" + insert + ";" + index + ";" + insert, "T0+2(" + create + "; " + insert + ") N2+1(" + index + ") T3+1(" + insert + ")"},
		{postgreSQL, false, "BEGIN; " + create + "; COMMIT;" + vacuum + ";" + insert, "T0+3(" + create + ") N3+1(" + vacuum + ") T4+1(" + insert + ")"},
		{postgreSQL, false, "BEGIN; " + create + "; COMMIT; BEGIN; " + insert + "; END", "T0+3(" + create + ") T3+3(" + insert + ")"},
		{postgreSQL, true, create + "; CALL p(); " + insert, "T0+1(" + create + ") N1+1(CALL p()) T2+1(" + insert + ")"},
		{mySQL, false, insert + "; SET @a = 1; UPDATE a", "T0+3(" + insert + "; SET @a = 1; UPDATE a)"},
		{mySQL, false, insert + ";" + create + ";" + insert, "T0+1(" + insert + ") N1+1(" + create + ") T2+1(" + insert + ")"},
		{mySQL, false, "LOCK TABLES a WRITE; " + insert + "; UNLOCK TABLES; " + insert, "N0+3(LOCK TABLES a WRITE; " + insert + "; UNLOCK TABLES) T3+1(" + insert + ")"},
		{mySQL, false, "/*!40101 SET NAMES utf8 */; CREATE TEMPORARY TABLE a; CALL p()", "T0+1(/*!40101 SET NAMES utf8 */) N1+1(CREATE TEMPORARY TABLE a) N2+1(CALL p())"},
		{mySQL, false, "SET autocommit = 0; " + insert, "N0+1(SET autocommit = 0) T1+1(" + insert + ")"},
		{sqlite, false, "PRAGMA foreign_keys = OFF; BEGIN TRANSACTION; " + create + "; COMMIT; PRAGMA foreign_keys = ON", "N0+1(PRAGMA foreign_keys = OFF) T1+3(" + create + ") N4+1(PRAGMA foreign_keys = ON)"},
		{sqlite, false, "PRAGMA main.user_version = 3; " + create, "T0+2(PRAGMA main.user_version = 3; " + create + ")"},
	}
	for _, tt := range tests {
		statements, err := split(tt.dialect, tt.text)
		require.NoError(t, err)
		got, err := units(tt.dialect, statements, tt.separate)
		require.NoError(t, err)
		assert.Equal(t, tt.want, describe(got), "%s: %s", tt.dialect, tt.text)
	}
	for text, want := range map[string]string{
		"BEGIN; SELECT 1":             "line 1: the transaction that begins here has no end",
		"SELECT 1;\nCOMMIT":           "line 2: COMMIT, but no transaction was begun",
		"BEGIN; SELECT 1;\nROLLBACK;": "line 2: ROLLBACK: a migration cannot undo itself",
		"BEGIN; BEGIN;":               "the transaction of line 1 is still open",
		"BEGIN; COMMIT AND CHAIN;":    "cannot undo itself, or hand its transaction on",
		"PREPARE TRANSACTION 'x';":    "cannot undo itself, or hand its transaction on",
	} {
		statements, err := split(postgreSQL, text)
		require.NoError(t, err)
		_, err = units(postgreSQL, statements, false)
		require.ErrorContains(t, err, want)
	}
}

// What PostgreSQL refuses in a transaction is found by looking.
func TestOutsideOfTransactions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]kind{
		"CREATE INDEX CONCURRENTLY ON a (b)": outside, "create unique index concurrently i on a (b)": outside, "CREATE INDEX \"CONCURRENTLY\" ON a (b)": ordinary,
		"DROP INDEX CONCURRENTLY i": outside, "REINDEX INDEX CONCURRENTLY i": outside, "REINDEX (VERBOSE, CONCURRENTLY) TABLE a": outside, "REINDEX TABLE a": ordinary,
		"VACUUM": outside, "CLUSTER": outside, "CLUSTER a USING i": ordinary, "ALTER SYSTEM SET x = 1": outside, "CREATE DATABASE x": outside, "DROP TABLESPACE x": outside,
		"ALTER TABLE a DETACH PARTITION b CONCURRENTLY": outside, "ALTER TABLE a DETACH PARTITION b": ordinary, "ALTER DATABASE a SET TABLESPACE b": outside, "ALTER DATABASE a SET x = 1": ordinary,
		"ALTER SUBSCRIPTION s REFRESH PUBLICATION": outside, "REFRESH MATERIALIZED VIEW CONCURRENTLY v": ordinary, "ALTER TYPE e ADD VALUE 'x'": ordinary,
		"ROLLBACK TO SAVEPOINT s": ordinary, "END": commits, "START TRANSACTION READ ONLY": begins, "ABORT": ends,
	} {
		s, err := split(postgreSQL, text)
		require.NoError(t, err)
		assert.Equal(t, want, s[0].kind(postgreSQL), text)
	}
}

func TestNameOfTheIndex(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"CREATE INDEX CONCURRENTLY Big_N ON big (n)":                                             "big_n/big",
		`CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "Big N" ON ONLY "My s"."b.c" (lower(n))`: `Big N/"My s"."b.c"`,
		"CREATE INDEX CONCURRENTLY ON big (n)":                                                   "",
		"DROP INDEX CONCURRENTLY big_n":                                                          "",
	} {
		s, err := split(postgreSQL, text)
		require.NoError(t, err)
		name, table, ok := createdIndex(s[0])
		if want == "" {
			assert.False(t, ok, text)
			continue
		}
		assert.Equal(t, want, name+"/"+table, text)
	}
}

func TestNoTransactionMark(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"-- migrate:no-transaction\nSELECT 1": true, "\ufeff\n-- why\r\n--migrate:no-transaction  \r\nSELECT 1": true,
		"SELECT 1; -- migrate:no-transaction": false, "SELECT 1;\n-- migrate:no-transaction": false, "-- migrate:no-transactions": false, "": false,
	} {
		assert.Equal(t, want, noTransaction(text), "%q", text)
	}
}

func TestExcerptsHaveNoSecrets(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]string{
		"CREATE USER a\n WITH PASSWORD 'hun''ter22'  LOGIN":                          "CREATE USER a WITH PASSWORD '***' LOGIN",
		"ALTER ROLE a PASSWORD E'hunter\\'22' VALID UNTIL 'x'":                       "ALTER ROLE a PASSWORD E'***' VALID UNTIL 'x'",
		"CREATE USER a IDENTIFIED BY 'hunter22'":                                     "CREATE USER a IDENTIFIED BY '***'",
		`CREATE USER a IDENTIFIED WITH mysql_native_password AS "hunter22"`:          "CREATE USER a IDENTIFIED WITH mysql_native_password AS '***'",
		"SET PASSWORD FOR a = PASSWORD('hunter22')":                                  "SET PASSWORD FOR a = PASSWORD('***')",
		"CREATE SUBSCRIPTION s CONNECTION 'host=x password=hunter22' PUBLICATION p":  "CREATE SUBSCRIPTION s CONNECTION '***' PUBLICATION p",
		"CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'b', password 'hunter22')": "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'b', password '***')",
		"CREATE ROLE a PASSWORD $$hunter22$$":                                        "CREATE ROLE a PASSWORD '***'",
		"CREATE ROLE a PASSWORD 'hunter22":                                           "CREATE ROLE a PASSWORD '***'",
		"INSERT INTO t (password) VALUES (NULL)":                                     "INSERT INTO t (password) VALUES (NULL)",
		"SELECT 'hunter23'":                                                          "SELECT 'hunter23'",
	} {
		assert.Equal(t, want, excerpt(sql))
	}
	assert.Less(t, len(excerpt(strings.Repeat("SELECT ä, ", 1000))), 170)
}

// Whatever a file has, its statements are parts of it in their order, each on
// the line that it says, and splitting one again gives the same.
func FuzzSplit(f *testing.F) {
	for _, seed := range []string{
		"SELECT 1; SELECT 'a;b'", "DO $$ BEGIN; END $$;", "-- x\n/* /* */ */ SELECT E'\\'';", "DELIMITER //\nCREATE TRIGGER t BEGIN SELECT 1; END//\n",
		"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; END; x", "/*!40101 SET a */;", "# a\n`b;`;[c;]", "BEGIN NOT ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; END;", "((;);", "$a$;$a$",
	} {
		for d := range 3 {
			f.Add(d, seed)
		}
	}
	f.Fuzz(func(t *testing.T, d int, text string) {
		dialect := dialect(uint(d) % 3)
		statements, err := split(dialect, text)
		if err != nil {
			return
		}
		text = strings.TrimPrefix(text, "\ufeff")
		at := 0
		for _, s := range statements {
			require.NotEmpty(t, s.text)
			i := strings.Index(text[at:], s.text)
			require.GreaterOrEqual(t, i, 0, "%q is not in the rest", s.text)
			// The first place where it could be may be inside a comment.
			for strings.Count(text[:at+i], "\n")+1 < s.line {
				next := strings.Index(text[at+i+1:], s.text)
				require.GreaterOrEqual(t, next, 0)
				i += next + 1
			}
			require.Equal(t, strings.Count(text[:at+i], "\n")+1, s.line)
			at += i + len(s.text)
			_ = s.kind(dialect)
			_ = excerpt(s.text)
			_, _, _ = createdIndex(s)
			// MySQL: -- is a comment at the end of a text, and none before a #.
			if !strings.Contains(strings.ToLower(text), "delimiter") && !strings.HasSuffix(s.text, "-") {
				again, err := split(dialect, s.text)
				require.NoError(t, err)
				require.Len(t, again, 1)
				require.Equal(t, s.text, again[0].text)
			}
		}
		_, _ = units(dialect, statements, d%2 == 0)
	})
}
