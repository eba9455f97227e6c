// SPDX-License-Identifier: Apache-2.0

package migration

import "context"

// A database is a connection to one, with what differs between them.
type database interface {
	session
	// store is where the version is kept.
	store() store
	// run runs a statement of a migration. When ctx ends it cancels the statement
	// on the server and waits for the server's word on it.
	run(ctx context.Context, s statement) error
	// exclusive tells whether the lock means something on this connection. It is
	// asked once, before the first try.
	exclusive(ctx context.Context) error
	tryLock(ctx context.Context) (bool, error)
	unlock(ctx context.Context) error
	// holder says who has the lock.
	holder(ctx context.Context) string
	// waiters are the sessions of other tools that wait for our lock, where they
	// could keep a statement from ending; see errYield.
	waiters(ctx context.Context) []string
	// entered is asked at the beginning of a transaction, where the version could
	// have changed in spite of the lock: errMoved.
	entered(ctx context.Context, version int64) error
	// held is asked at its end: whether we still have the lock.
	held(ctx context.Context) error
	// outside prepares for a statement that is not in a transaction. With again it
	// may have taken effect before. It can be found to be done already.
	outside(ctx context.Context, s statement, again bool) (done bool, err error)
	// refused reports whether the error is the server's, so that the statement
	// had no effect; canceled, whether that was because it was cancelled;
	// redundant, whether because it had its effect before; deadlock, what it says.
	refused(err error) bool
	canceled(err error) bool
	redundant(err error) bool
	deadlock(err error) bool
	// activity says what a long statement is doing, as attributes for the log.
	activity(ctx context.Context) []any
	// reset undoes what a migration has set for the session.
	reset(ctx context.Context) error
	close()
}
