package users

import (
	"context"
	"errors"

	"github.com/google/uuid"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/strata-accounts/strata/platform/cache"
)

// cacheKind is the kind of cached users, as the table's triggers note it.
const cacheKind = "user"

// maxHints is how many e-mails each process keeps hints for, some 200 bytes each.
const maxHints = 10_000

// CacheKinds are the kinds of entities that CacheRepository keeps.
var CacheKinds = []string{cacheKind}

// CacheRepository is the third rung: read-through over another one. Users are cached by id; what changes something, or
// is read to be changed, it leaves to that one, and so the lists. SwitchRepository tells the cache of changes.
//
// By e-mail it has hints, in the process alone, so that no address lies in a key elsewhere: whose the database said this
// spelling to be, and what that user's e-mail was. A hint counts as long as the user has that very e-mail; so none needs to
// be invalidated, and nothing is assumed about how the database compares. That nobody has an e-mail is not kept.
type CacheRepository struct {
	Repository

	users *cache.Entity[User]
	hints *lru.Cache[string, hint] // by e-mail as asked for
}

type hint struct {
	id    uuid.UUID
	email string // the user's
}

var _ Repository = (*CacheRepository)(nil)

// NewCacheRepository returns a CacheRepository over next. There is one per cache.
func NewCacheRepository(next Repository, c *cache.Cache) *CacheRepository {
	hints, _ := lru.New[string, hint](maxHints) // fails below 1 only
	return &CacheRepository{
		Repository: next,
		users: cache.Rows(c, cacheKind, cache.Options{NotFound: ErrNotFound}, cache.ByUUID(next.ByID),
			func(_ cache.ID, row userRow) User { return toUser(row) }),
		hints: hints,
	}
}

// ByID implements Reader.
func (r *CacheRepository) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	return r.users.Get(ctx, cache.UUID(id))
}

// ByEmail implements Reader.
func (r *CacheRepository) ByEmail(ctx context.Context, email string) (User, error) {
	if known, ok := r.hints.Get(email); ok {
		u, err := r.ByID(ctx, known.id)
		if err == nil && u.Email == known.email {
			return u, nil
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return User{}, err
		}
	}
	u, err := r.Repository.ByEmail(ctx, email)
	if err == nil {
		r.hints.Add(email, hint{id: u.ID, email: u.Email})
	}
	return u, err
}
