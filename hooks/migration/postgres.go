// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gmdatabase "github.com/golang-migrate/migrate/v4/database"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/cleanstart-dev/cleanimg-init/hooks/await"
)

// postgres is a connection to PostgreSQL.
type postgres struct {
	conn    *pgconn.PgConn
	config  *pgconn.Config
	log     *slog.Logger
	timeout time.Duration

	schema, table string // of the version
	keys          []int64
	pid           uint32 // of our backend

	mu    sync.Mutex // of the second connection
	extra *pgconn.PgConn
}

// cancelTime is how long the server may take to answer after a statement was
// cancelled, before the connection is closed.
const cancelTime = 5 * time.Second

// connectTime bounds an attempt to connect, unless the URL says how long.
const connectTime = 10 * time.Second

func openPostgres(ctx context.Context, t target, o Options) (database, error) {
	config, err := pgconn.ParseConfig(t.url)
	if err != nil {
		return nil, badSettings(err)
	}
	if !strings.HasPrefix(config.Host, "/") && strings.ContainsAny(config.Host, "@/?# ") {
		return nil, errURL // the host may be a part of the password
	}
	config.Password = cmp.Or(o.Password, config.Password, o.DefaultPassword)
	if config.ConnectTimeout == 0 || !strings.Contains(t.url, "connect_timeout") && config.ConnectTimeout > connectTime {
		config.ConnectTimeout = connectTime
	}
	await.DropClientParameters(config.RuntimeParams)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = shorten(o.Application, 63)
	}
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelTime}
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		o.Log.Debug("notice", "severity", n.Severity, "message", n.Message)
	}
	p := &postgres{config: config, log: o.Log, timeout: t.timeout}
	if p.conn, err = p.connect(ctx); err != nil {
		return nil, err
	}
	if err := p.locate(ctx, t); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// errURL is the error for a URL that cannot be parsed. It shows nothing of it:
// what cannot be parsed may be the password.
var errURL = errors.New("the database URL is not valid: accepted is postgres://user:password@host:5432/name?sslmode=require. " +
	"Special characters of a password have to be percent-encoded there, or give it as PGPASSWORD or by --password-file")

// badSettings is errURL, unless it is a parameter that is wrong or the file that
// it names.
func badSettings(err error) error {
	mistake := await.PostgresMistake(err)
	for _, about := range []string{"failed to parse", "invalid port", "could not match"} {
		if strings.HasPrefix(mistake.Error(), about) {
			return errURL
		}
	}
	return fmt.Errorf("a parameter of the database URL, or a variable in its place (PGSSLMODE and the like): %w", mistake)
}

func (p *postgres) connect(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := pgconn.ConnectConfig(ctx, p.config)
	if err == nil {
		return conn, nil
	}
	server := p.config.Host + ":" + strconv.Itoa(int(p.config.Port))
	if strings.HasPrefix(p.config.Host, "/") {
		server = p.config.Host
	}
	connect := &ConnectError{Server: fmt.Sprintf("PostgreSQL at %s, database %s, as %s", server, p.config.Database, p.config.User), Err: err}
	var server2 *pgconn.PgError
	if errors.As(err, &server2) {
		connect.Err = pgError{server2}
		// Starting up, shutting down, too many connections, a database that has
		// not been made yet: these pass.
		connect.Permanent = !slices.Contains([]string{"57P01", "57P02", "57P03", "53300", "53400", "3D000"}, server2.Code)
		// To the server an empty password is a wrong one.
		if server2.Code == "28P01" && p.config.Password == "" {
			connect.Err = fmt.Errorf("%w (none was given: the URL, --password-file or PGPASSWORD may have it)", connect.Err)
		}
	}
	return nil, connect
}

var quotedNames = regexp.MustCompile(`"(.*?)"`)

// locate finds out what golang-migrate makes its lock's key of, and prepares the
// session.
func (p *postgres) locate(ctx context.Context, t target) error {
	rows, err := p.query(ctx, "SELECT current_database(), current_schema(), pg_backend_pid()")
	if err != nil {
		return err
	}
	name := rows[0][0]
	p.schema, p.table = rows[0][1], t.table
	pid, err := strconv.ParseUint(rows[0][2], 10, 32)
	if err != nil {
		return fmt.Errorf("pid of the backend: %w", err)
	}
	p.pid = uint32(pid)
	if t.quoted {
		names := quotedNames.FindAllStringSubmatch(t.table, -1)
		switch len(names) {
		case 1:
			p.table = names[0][1]
		case 2:
			p.schema, p.table = names[0][1], names[1][1]
		default:
			return fmt.Errorf("x-migrations-table=%s: at most a schema and a table are accepted", t.table)
		}
	}
	if p.schema == "" {
		return errors.New("no schema to keep the version in: none of the search_path exists")
	}
	// golang-migrate's command takes the URL's path, its library the name that
	// the server has. Both are to be kept out.
	for _, base := range []string{t.path, name, "/" + name} {
		text, err := gmdatabase.GenerateAdvisoryLockId(base, p.schema, p.table)
		if err != nil {
			return err
		}
		key, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		if base != "" && !slices.Contains(p.keys, key) {
			p.keys = append(p.keys, key)
		}
	}
	return nil
}

// settle sets what the session needs. The server finds out within seconds that
// we have died: it looks at the connection during long statements (from version
// 14 on), and sends keepalives. Servers and poolers that do not know that are
// left as they are.
func (p *postgres) settle(ctx context.Context) error {
	for _, set := range []string{
		"SET client_connection_check_interval = '2s'",
		"SET tcp_keepalives_idle = 15", "SET tcp_keepalives_interval = 5", "SET tcp_keepalives_count = 3",
		"SET idle_in_transaction_session_timeout = 0", // we are never idle in one without need
	} {
		if err := p.exec(ctx, set); err != nil && !p.refused(err) {
			return err
		}
	}
	return nil
}

func (p *postgres) store() store {
	host, _ := os.Hostname() //nolint:errcheck // only for people
	quote := func(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
	return store{
		session: p, dialect: postgreSQL, by: host,
		version: quote(p.schema) + "." + quote(p.table), history: quote(p.schema) + "." + quote(p.table+"_history"),
	}
}

// placeholders makes $1 of the first ?, and so on.
func placeholders(query string) string {
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

func (p *postgres) exec(ctx context.Context, query string, args ...any) error {
	_, err := execute(ctx, p.conn, query, args...)
	return err
}

func (p *postgres) query(ctx context.Context, query string, args ...any) ([][]string, error) {
	return execute(ctx, p.conn, query, args...)
}

func execute(ctx context.Context, conn *pgconn.PgConn, query string, args ...any) ([][]string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(fmt.Sprint(a))
	}
	var result *pgconn.Result
	if len(args) == 0 {
		results, err := conn.Exec(ctx, query).ReadAll()
		if err != nil {
			return nil, described(err)
		}
		if len(results) == 0 {
			return nil, nil
		}
		result = results[len(results)-1]
	} else {
		result = conn.ExecParams(ctx, placeholders(query), params, nil, nil, nil).Read()
	}
	if result.Err != nil {
		return nil, described(result.Err)
	}
	rows := make([][]string, len(result.Rows))
	for i, row := range result.Rows {
		for _, value := range row {
			rows[i] = append(rows[i], string(value))
		}
	}
	return rows, nil
}

// run runs a statement of a migration. Rows are thrown away as they come.
func (p *postgres) run(ctx context.Context, s statement) error {
	if p.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("the statement took longer than %s (x-statement-timeout): %w", p.timeout, context.DeadlineExceeded))
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return notBegun{err}
	}
	results := p.conn.Exec(ctx, s.text)
	for results.NextResult() {
		reader := results.ResultReader()
		for reader.NextRow() {
		}
		_, _ = reader.Close() // its error is that of results
	}
	err := results.Close()
	var server *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return context.Cause(ctx)
	case errors.As(err, &server) && server.Position > 0:
		return lineError{described(err), lineAt(s.text, int(server.Position))}
	}
	return described(err)
}

// entered: the advisory lock keeps the version as it is.
func (p *postgres) entered(context.Context, int64) error { return nil }

// reset undoes what a migration has set. DISCARD ALL would release the lock.
func (p *postgres) reset(ctx context.Context) error {
	if err := p.exec(ctx, "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"); err != nil {
		return err
	}
	return p.settle(ctx)
}

func (p *postgres) close() {
	ctx, cancel := context.WithTimeout(context.Background(), bookkeepingTime)
	defer cancel()
	_ = p.conn.Close(ctx) // the server notices in any case
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extra != nil {
		_ = p.extra.Close(ctx)
	}
}
