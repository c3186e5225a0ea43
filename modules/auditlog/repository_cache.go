package auditlog

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
)

// The kinds of cached entities.
const (
	eventKind   = "audit_event"   // an event by its id; it never changes
	subjectKind = "audit_subject" // whether a person has not been erased, by the id that events have; as the trigger notes it
)

// errErased says that a subject has no origins. It is not cached: one who comes back would else have to be announced.
var errErased = errors.New("the subject has no origins")

// CacheRepository is the third rung: read-through over another one. Lists and all that writes it leaves to that one;
// SwitchRepository tells the cache of erasures.
//
// An event that retention has dropped may be found for as long as the cache keeps it, a minute at most.
type CacheRepository struct {
	Repository

	events   *cache.Entity[Event]
	subjects *cache.Entity[bool]
}

var _ Repository = (*CacheRepository)(nil)

// NewCacheRepository returns a CacheRepository over next. There is one per cache.
func NewCacheRepository(next Repository, c *cache.Cache) *CacheRepository {
	return &CacheRepository{
		Repository: next,
		events:     cache.For[Event](c, eventKind, cache.Options{Bounded: true}),
		subjects:   cache.For[bool](c, subjectKind, cache.Options{Bounded: true, Direct: true}),
	}
}

// ByID implements Reader. An event may have been cached before its subject was erased: then it has lost its origin.
func (r *CacheRepository) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	e, err := r.events.Get(ctx, id.String(), func(ctx context.Context) (Event, error) {
		return r.Repository.ByID(ctx, id)
	})
	if err != nil || e.IP == "" && e.UserAgent == "" {
		return e, err
	}
	subject := e.subject()
	_, err = r.subjects.Get(ctx, subject, func(ctx context.Context) (bool, error) {
		has, err := r.HasOrigins(ctx, subject)
		if err == nil && !has {
			err = errErased
		}
		return has, err
	})
	if errors.Is(err, errErased) {
		e.IP, e.UserAgent, err = "", "", nil
	}
	return e, err
}
