package preferences

import (
	"context"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
)

// The kinds of cached entities, as the tables' triggers note them.
const (
	valuesKind      = "pref"     // what a user has set, by the user's id
	definitionsKind = "prefdefs" // the catalogue, whole: it is read whole
	allDefinitions  = "all"
)

// CacheKinds are the kinds of entities that CacheRepository keeps.
var CacheKinds = []string{valuesKind, definitionsKind}

// CacheRepository is the third rung: read-through over another one. What changes something, or is read to be changed, it
// leaves to that one; SwitchRepository tells the cache of it.
type CacheRepository struct {
	Repository

	values      *cache.Entity[Values]
	definitions *cache.Entity[Catalogue]
}

var _ Repository = (*CacheRepository)(nil)

// NewCacheRepository returns a CacheRepository over next. There is one per cache.
func NewCacheRepository(next Repository, c *cache.Cache) *CacheRepository {
	options := cache.Options{Bounded: true}
	return &CacheRepository{
		Repository: next,
		values: cache.Rows(c, valuesKind, options, cache.ByUUID(next.Values),
			func(id cache.ID, rows []versionedValue) Values { return toValues(id.UUID(), rows) }),
		definitions: cache.Rows(c, definitionsKind, options,
			func(ctx context.Context, _ cache.ID) (Catalogue, error) { return next.Definitions(ctx) },
			func(_ cache.ID, rows []definitionRow) Catalogue { return toCatalogue(rows) }),
	}
}

// Definitions implements Reader.
func (r *CacheRepository) Definitions(ctx context.Context) (Catalogue, error) {
	return r.definitions.Get(ctx, cache.Text(allDefinitions))
}

// Values implements Reader.
func (r *CacheRepository) Values(ctx context.Context, userID uuid.UUID) (Values, error) {
	return r.values.Get(ctx, cache.UUID(userID))
}
