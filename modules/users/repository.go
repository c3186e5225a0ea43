package users

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
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

	// Create stores a new user and returns it as stored. ID, Email, Name, Status, Metadata and EmailVerified are taken from u.
	//
	// Errors: ErrEmailTaken.
	Create(ctx context.Context, u User) (User, error)

	// Import stores those users whose e-mail nobody has yet, with their password hashes where given, and returns for each
	// whether it was created, and the id under which the e-mail is known now.
	//
	// Errors: none of its own.
	Import(ctx context.Context, batch []ImportUser) ([]Imported, error)

	// Update locks the user's row, calls mutate with its state, and stores what mutate changed, as the next version. When
	// mutate changes nothing, nothing is written. An error of mutate is returned as it is.
	//
	// Errors: ErrNotFound, ErrEmailTaken.
	Update(ctx context.Context, id uuid.UUID, mutate func(*User) error) (User, error)

	// SignedIn notes a sign-in on an active user. It holds the row until the transaction ends, so that a suspension
	// comes either before it, and is seen, or after it, and ends the session made with it.
	//
	// Errors: ErrNotFound where there is no active user with this id.
	SignedIn(ctx context.Context, id uuid.UUID) (User, error)

	// Hold keeps the user from being deleted until the transaction that the context carries ends.
	//
	// Errors: ErrNotFound.
	Hold(ctx context.Context, id uuid.UUID) error

	// Delete removes the user's row and all that hangs on it, for good.
	//
	// Errors: ErrNotFound.
	Delete(ctx context.Context, id uuid.UUID) error

	// SetCredential stores the password hash of a user.
	//
	// Errors: ErrNotFound.
	SetCredential(ctx context.Context, id uuid.UUID, hash string) error

	// SwapCredential replaces the password hash if it still is old, and reports whether it did.
	//
	// Errors: none of its own.
	SwapCredential(ctx context.Context, id uuid.UUID, old, hash string) (bool, error)

	// CreateToken stores t and returns when it expires.
	//
	// Errors: ErrNotFound where there is no such user.
	CreateToken(ctx context.Context, t Token) (time.Time, error)

	// TakeToken removes the token and returns it, so that it works once.
	//
	// Errors: ErrTokenInvalid where there is none, or it has expired.
	TakeToken(ctx context.Context, purpose Purpose, hash []byte) (Token, error)

	// DeleteTokens removes a user's tokens.
	//
	// Errors: none of its own.
	DeleteTokens(ctx context.Context, id uuid.UUID) error

	// DeleteExpiredTokens removes at most limit tokens that have expired and returns their number.
	//
	// Errors: none of its own.
	DeleteExpiredTokens(ctx context.Context, limit int) (int64, error)
}

// Reader is the part of Repository that changes nothing: all that a comparison of two rungs may call.
type Reader interface {
	// ByID returns a user, the soft-deleted too.
	//
	// Errors: ErrNotFound.
	ByID(ctx context.Context, id uuid.UUID) (User, error)

	// ByEmail returns the user with this e-mail, without regard to case, the soft-deleted too.
	//
	// Errors: ErrNotFound.
	ByEmail(ctx context.Context, email string) (User, error)

	// List returns a page of at most f.Limit users, newest first.
	//
	// Errors: none of its own.
	List(ctx context.Context, f Filter) ([]User, error)

	// Credential returns the password hash of a user.
	//
	// Errors: ErrNotFound where the user has none.
	Credential(ctx context.Context, id uuid.UUID) (string, error)
}

// ImportUser is a user to import. Hash is empty where it comes without a password.
type ImportUser struct {
	User User
	Hash string
}

// Imported is what became of one ImportUser.
type Imported struct {
	ID      uuid.UUID
	Created bool
}

// constraints names the error that a violated constraint means.
var constraints = map[string]*errs.Error{
	"users_email_key":               ErrEmailTaken,
	"user_credentials_user_id_fkey": ErrNotFound,
	"user_tokens_user_id_fkey":      ErrNotFound,
}
