package preferences

import (
	"context"
	"encoding/json"

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
//
// A stored value always satisfies the schema of its definition: who writes a value holds the definition by
// LockDefinitions while it checks and until it commits; who changes a definition holds it by UpdateDefinition, which
// waits for those, while it looks at the values.
type Repository interface {
	Reader

	// CreateDefinition stores a new definition and returns it as stored, and true. Where the key is taken, also by a
	// transaction that commits meanwhile, it returns false and stores nothing.
	//
	// Errors: none of its own.
	CreateDefinition(ctx context.Context, d Definition) (Definition, bool, error)

	// UpdateDefinition locks the definition's row, calls mutate with its state, and stores what mutate changed, as the
	// next version. When mutate changes nothing, nothing is written. An error of mutate is returned as it is.
	//
	// Errors: ErrNotDefined.
	UpdateDefinition(ctx context.Context, key string, mutate func(*Definition) error) (Definition, error)

	// DeleteDefinition removes a definition.
	//
	// Errors: ErrNotDefined; ErrInUse where users have set values.
	DeleteDefinition(ctx context.Context, key string) error

	// EachValue calls visit with every distinct value that is stored for key, and the number of users who have it. An
	// error of visit ends it and is returned.
	//
	// Errors: none of its own.
	EachValue(ctx context.Context, key string, visit func(value json.RawMessage, users int64) error) error

	// LockDefinitions keeps those of these definitions that exist from being changed or deleted until the context's
	// transaction ends. It must be called in one.
	//
	// Errors: none of its own.
	LockDefinitions(ctx context.Context, keys []string) error

	// UpdateValues locks what the user has set, calls mutate with it, and stores what mutate changed in Set, as the next
	// version. When mutate changes nothing, the version stays. An error of mutate is returned as it is.
	//
	// Errors: ErrNotDefined where Set gains a key that has no definition.
	UpdateValues(ctx context.Context, userID uuid.UUID, mutate func(*Values) error) (Values, error)

	// DeleteValues removes all that is stored of a user.
	//
	// Errors: none of its own.
	DeleteValues(ctx context.Context, userID uuid.UUID) error
}

// Reader is the part of Repository that changes nothing: all that a comparison of two rungs may call.
type Reader interface {
	// Definitions returns all definitions.
	//
	// Errors: none of its own.
	Definitions(ctx context.Context) (Catalogue, error)

	// Values returns what a user has set: nothing, at version 0, for one it never heard of.
	//
	// Errors: none of its own.
	Values(ctx context.Context, userID uuid.UUID) (Values, error)
}

// constraints names the error that a violated constraint means to who writes a value.
var constraints = map[string]*errs.Error{
	"user_preference_values_key_fkey": ErrNotDefined,
}

// referenced names the error that the same constraint means to who deletes a definition.
var referenced = map[string]*errs.Error{
	"user_preference_values_key_fkey": ErrInUse,
}
