// SPDX-License-Identifier: Apache-2.0

package migration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	gmdatabase "github.com/golang-migrate/migrate/v4/database"

	"github.com/cleanstart-dev/cleanimg-init/hooks"
)

// A Driver lets programs that use golang-migrate as a library have our
// databases: with migrate.NewWithInstance. A migration's body, and its version,
// are then one transaction where that is possible.
//
// golang-migrate says where a migration begins and ends by writing the version
// twice, dirty and not. The first one is kept in mind here, and written only
// where the database cannot roll the migration back.
type Driver struct {
	ctx      context.Context //nolint:containedctx // the interface has none
	database database
	store    store
	timeout  time.Duration
	heldLock bool
	pending  *int64 // the version that was set to dirty
	open     bool   // a transaction
}

var _ gmdatabase.Driver = (*Driver)(nil)

// OpenDriver connects to a database of Options and makes the tables that are
// missing. What it does ends with ctx. Of the options Source is not used, nor
// what is about files.
func OpenDriver(ctx context.Context, o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = discard()
	}
	t, err := parseTarget(o.Database)
	if err != nil {
		return nil, err
	}
	db, err := t.open(ctx, o)
	if err != nil {
		return nil, err
	}
	d := &Driver{ctx: ctx, database: db, store: db.store(), timeout: o.LockTimeout}
	if err := d.prepare(); err != nil {
		db.close()
		return nil, err
	}
	return d, nil
}

// prepare makes the tables under the lock.
func (d *Driver) prepare() error {
	st, err := d.store.read(d.ctx)
	if err != nil || st.tables {
		return err
	}
	if err := d.Lock(); err != nil {
		return err
	}
	return errors.Join(d.store.create(d.ctx), d.Unlock())
}

// Open is for golang-migrate's registry, which has no options: like
// [OpenDriver] with a URL.
func (d *Driver) Open(url string) (gmdatabase.Driver, error) {
	return OpenDriver(context.Background(), Options{Database: url})
}

// Close ends the connection.
func (d *Driver) Close() error {
	d.database.close()
	return nil
}

// Lock waits for the lock as long as LockTimeout.
func (d *Driver) Lock() error {
	if d.heldLock {
		return gmdatabase.ErrLocked
	}
	ctx := d.ctx
	if d.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d.timeout, ErrLockTimeout)
		defer cancel()
	}
	if err := d.database.exclusive(ctx); err != nil {
		return err
	}
	for {
		ok, err := d.database.tryLock(ctx)
		if ok || err != nil {
			d.heldLock = ok
			return err
		}
		if err := hooks.Pause(ctx, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%w; it is held by %s", err, d.database.holder(d.ctx))
		}
	}
}

// Unlock releases the lock, and rolls back what was not completed.
func (d *Driver) Unlock() error {
	if !d.heldLock {
		return gmdatabase.ErrNotLocked
	}
	d.heldLock, d.pending = false, nil
	var err error
	if d.open {
		d.open = false
		err = d.database.exec(d.ctx, "ROLLBACK")
	}
	return errors.Join(err, d.database.unlock(d.ctx))
}

// Run runs a migration.
func (d *Driver) Run(migration io.Reader) error {
	text, err := io.ReadAll(migration)
	if err != nil {
		return err
	}
	statements, err := split(d.store.dialect, string(text))
	if err != nil {
		return err
	}
	parts, err := units(d.store.dialect, statements, noTransaction(string(text)))
	if err != nil {
		return err
	}
	if len(parts) == 1 && parts[0].transactional() {
		return d.whole(parts[0])
	}
	if d.pending != nil && d.store.dialect == mySQL {
		err := d.store.together(d.ctx, func(ctx context.Context) error { return d.store.setVersion(ctx, *d.pending, true) })
		if err != nil {
			return err
		}
	}
	for _, u := range parts {
		if err := d.part(u); err != nil {
			return err
		}
	}
	return nil
}

// whole runs a migration in a transaction that SetVersion ends, if there is one
// to come.
func (d *Driver) whole(u unit) error {
	if err := d.database.exec(d.ctx, u.begin); err != nil {
		return err
	}
	d.open = true
	if err := d.statements(u); err != nil {
		d.open = false
		return errors.Join(err, d.database.exec(d.ctx, "ROLLBACK"))
	}
	if d.pending != nil {
		return nil
	}
	d.open = false
	return d.database.exec(d.ctx, "COMMIT")
}

func (d *Driver) part(u unit) error {
	if u.transactional() {
		if err := d.database.exec(d.ctx, u.begin); err != nil {
			return err
		}
		if err := d.statements(u); err != nil {
			return errors.Join(err, d.database.exec(d.ctx, "ROLLBACK"))
		}
		return d.database.exec(d.ctx, "COMMIT")
	}
	if done, err := d.database.outside(d.ctx, u.statements[0], false); done || err != nil {
		return err
	}
	return d.statements(u)
}

func (d *Driver) statements(u unit) error {
	for _, s := range u.statements {
		if err := d.database.run(d.ctx, s); err != nil {
			line := s.line
			var at lineError
			if errors.As(err, &at) {
				line, err = line+at.line, at.error
			}
			return &StatementError{File: "migration", Line: line, Statement: excerpt(s.text), Err: withoutSecrets(err, s.text)}
		}
	}
	return nil
}

// SetVersion writes the version and commits, or keeps a dirty one in mind.
func (d *Driver) SetVersion(version int, dirty bool) error {
	number := int64(version)
	if dirty {
		d.pending = &number
		return nil
	}
	d.pending = nil
	if !d.open {
		return d.store.together(d.ctx, func(ctx context.Context) error { return d.store.setVersion(ctx, number, false) })
	}
	d.open = false
	if err := d.store.setVersion(d.ctx, number, false); err != nil {
		return errors.Join(err, d.database.exec(d.ctx, "ROLLBACK"))
	}
	return d.database.exec(d.ctx, "COMMIT")
}

// Version returns the version, with what SetVersion keeps in mind.
func (d *Driver) Version() (version int, dirty bool, err error) {
	if d.pending != nil {
		return int(*d.pending), true, nil
	}
	st, err := d.store.read(d.ctx)
	return int(st.version), st.dirty, err
}

// Drop removes all tables of the current schema.
func (d *Driver) Drop() error {
	quote, cascade := `"`, ""
	query := "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
	switch d.store.dialect {
	case postgreSQL:
		cascade = " CASCADE"
		query = "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
	case mySQL:
		quote = "`"
		query = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
		if err := d.database.exec(d.ctx, "SET foreign_key_checks = 0"); err != nil {
			return err
		}
	}
	tables, err := d.database.query(d.ctx, query)
	if err != nil {
		return err
	}
	for _, row := range tables {
		if err := d.database.exec(d.ctx, "DROP TABLE IF EXISTS "+quote+row[0]+quote+cascade); err != nil {
			return err
		}
	}
	return d.database.reset(d.ctx)
}
