package sessions

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Repository is the only way to the module's tables. It has one implementation per rung of the ladder, and all of them
// pass the same conformance suite (repository_test.go):
//
//	DirectRepository    hand-written SQL, what a team has today
//	PostgresRepository  GORM models on the bounded pool
//	CacheRepository     read-through over PostgresRepository
//	SwitchRepository    picks one of them per key, by the module's stage
//
// Every method joins the context's transaction. Besides the errors named below, each may return errs.ErrBusy,
// errs.ErrTimeout, errs.ErrUnavailable and errs.ErrCanceled.
type Repository interface {
	Reader

	// Create stores a new session and returns it as stored.
	//
	// Errors: none of its own.
	Create(ctx context.Context, n NewSession) (Session, error)

	// Lock returns a session, an expired one too, and holds its row until the transaction ends: its token stays what it
	// is. What Rotate and Delete are given has been locked.
	//
	// Errors: ErrNotFound.
	Lock(ctx context.Context, id uuid.UUID) (Session, error)

	// LockAll is Lock for all sessions of a user but the newest, of which it skips so many. It returns them newest first.
	//
	// Errors: none of its own.
	LockAll(ctx context.Context, userID uuid.UUID, skip int) ([]Session, error)

	// Rotate gives a locked session another token.
	//
	// Errors: ErrNotFound.
	Rotate(ctx context.Context, s Session, tokenHash Hash) (Session, error)

	// Delete removes locked sessions.
	//
	// Errors: none of its own.
	Delete(ctx context.Context, locked []Session) error

	// Seen notes when sessions were last used, which prolongs their idle life by p.Idle. It overlooks those that have
	// ended, and those noted less than p.Interval before. It returns how many it wrote.
	//
	// Errors: none of its own.
	Seen(ctx context.Context, batch []Use, p SeenPolicy) (int64, error)

	// DeleteExpired removes at most limit expired sessions, overlooking those that another transaction is removing, and
	// returns their number.
	//
	// Errors: none of its own.
	DeleteExpired(ctx context.Context, limit int) (int64, error)

	// CountAttempt counts an attempt to sign in, as a failure until it is forgiven, and returns the count. A client from
	// which the account has been signed in to has a count of its own.
	//
	// Errors: none of its own.
	CountAttempt(ctx context.Context, a Attempt) (Tally, error)

	// ForgiveAttempt takes one failure off a count.
	//
	// Errors: none of its own.
	ForgiveAttempt(ctx context.Context, key Hash) error

	// Recognise remembers that an account was signed in to from a client.
	//
	// Errors: none of its own.
	Recognise(ctx context.Context, client Hash, userID uuid.UUID) error

	// Forget removes what is remembered about a user besides sessions.
	//
	// Errors: none of its own.
	Forget(ctx context.Context, userID uuid.UUID) error

	// DeleteStale removes at most limit counts that have run out, and at most limit clients that have not been seen for so
	// long, and returns how many.
	//
	// Errors: none of its own.
	DeleteStale(ctx context.Context, unseen time.Duration, limit int) (int64, error)
}

// Reader is the part of Repository that changes nothing: all that a comparison of two rungs may call.
type Reader interface {
	// ByToken returns the live session with this token.
	//
	// Errors: ErrNotFound, also for an expired one.
	ByToken(ctx context.Context, tokenHash Hash) (Session, error)

	// List returns a user's live sessions, newest first.
	//
	// Errors: none of its own.
	List(ctx context.Context, userID uuid.UUID) ([]Session, error)
}

// Use is the use of a session some time ago. It is not given as a point in time, which would be of another clock than
// the database's.
type Use struct {
	ID  uuid.UUID
	Ago time.Duration
}

// SeenPolicy says what the use of a session does to it.
type SeenPolicy struct {
	Idle     time.Duration // how long it may then stay unused
	Interval time.Duration // a use sooner than this after the one before it is not written
}

// Attempt is an attempt to sign in.
type Attempt struct {
	Account Hash          // of the e-mail address, whether an account has it or not
	Client  Hash          // of the e-mail address and the client's address
	Max     int           // failures that may be counted
	Window  time.Duration // how long failures are remembered, from the first one on
}

// Tally is the number of failures that have been counted under a key: of the account, or of a client it knows.
type Tally struct {
	Key        Hash
	Failures   int           // never more than Attempt.Max + 1, which means too many
	ResetAfter time.Duration // until they are forgotten
}
