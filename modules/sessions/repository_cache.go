package sessions

import (
	"context"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
)

// cacheKind is the kind of cached sessions, as the table's trigger notes it.
const cacheKind = "ses"

// CacheKinds are the kinds of entities that CacheRepository keeps.
var CacheKinds = []string{cacheKind}

// CacheRepository is the third rung: PostgresRepository with the session of a token, which is checked on every request,
// read through the cache. Sessions are strict: a revocation that has been acknowledged is in force on every instance.
//
// A session in the cache may be used meanwhile, which prolongs its life in the database alone. So one that is alive by
// its cached deadline is alive, and one that seems to have expired is looked up.
type CacheRepository struct {
	*PostgresRepository
	byToken *cache.Entity[Session]
	clock   *databaseClock
}

var _ Repository = (*CacheRepository)(nil)

// NewCacheRepository returns a CacheRepository over this one. UserKey returns the key that users have in the cache: who
// reads a session by its token goes on to its user, and has both in one round trip (see cache.Together).
func NewCacheRepository(p *PostgresRepository, c *cache.Cache, userKey func(id uuid.UUID) string) *CacheRepository {
	return &CacheRepository{
		PostgresRepository: p,
		byToken: cache.Rows(c, cacheKind, cache.Options{NotFound: ErrNotFound},
			func(ctx context.Context, id cache.ID) (Session, error) { return p.stored(ctx, id.Digest()) },
			func(_ cache.ID, row sessionRow) Session { return toSession(row) },
		).Leads(func(s Session) string { return userKey(s.UserID) }),
		clock: &databaseClock{db: p.db},
	}
}

// ByToken implements Reader.
func (r *CacheRepository) ByToken(ctx context.Context, tokenHash Hash) (Session, error) {
	s, err := r.byToken.Get(ctx, cache.Digest(tokenHash))
	if err != nil {
		return Session{}, err
	}
	now, err := r.clock.now(ctx)
	if err != nil {
		return Session{}, err
	}
	if now.Before(s.IdleExpiresAt) {
		return s, nil
	}
	return r.PostgresRepository.ByToken(ctx, tokenHash)
}
