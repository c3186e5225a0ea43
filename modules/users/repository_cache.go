package users

import (
	"context"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
)

// cacheKind is the kind of cached users, as the table's triggers note it.
const cacheKind = "user"

// CacheRepository is the third rung: read-through over another one. Users are cached by id; what changes something, or
// is read to be changed, it leaves to that one, and so the lists. SwitchRepository tells the cache of changes.
type CacheRepository struct {
	Repository

	users *cache.Entity[User]
}

var _ Repository = (*CacheRepository)(nil)

// NewCacheRepository returns a CacheRepository over next. There is one per cache.
func NewCacheRepository(next Repository, c *cache.Cache) *CacheRepository {
	return &CacheRepository{
		Repository: next,
		users: cache.Rows(c, cacheKind, cache.Options{NotFound: ErrNotFound}, cache.ByUUID(next.ByID),
			func(_ string, row userRow) User { return toUser(row) }),
	}
}

// ByID implements Reader.
func (r *CacheRepository) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	return r.users.Get(ctx, id.String())
}
