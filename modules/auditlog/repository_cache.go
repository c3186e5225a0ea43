package auditlog

import (
	"bytes"
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

// CacheKinds are the kinds of entities that CacheRepository keeps.
var CacheKinds = []string{eventKind, subjectKind}

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
	r := &CacheRepository{Repository: next}
	r.subjects = cache.For(c, subjectKind, cache.Options{Bounded: true}, r.hasOrigins)
	r.events = cache.Rows(c, eventKind, cache.Options{Bounded: true, Same: sameEvent}, cache.ByUUID(next.ByID),
		func(_ cache.ID, row eventRow) Event { return toEvent(row) },
	).Leads(func(e Event) string {
		if !personal(e) {
			return ""
		}
		return r.subjects.Key(cache.Text(e.subject()))
	})
	return r
}

// personal reports whether an event holds what an erasure takes from it.
func personal(e Event) bool { return e.IP != "" || e.UserAgent != "" }

// sameEvent reports whether a cached event may stand for the stored one: it may still have an origin that was erased.
func sameEvent(served, stored any) bool {
	s, _ := served.(Event) // both are
	e, _ := stored.(Event)
	return bytes.Equal(s.Leaf(), e.Leaf()) && (!personal(e) || s.IP == e.IP && s.UserAgent == e.UserAgent)
}

// ByID implements Reader. An event may have been cached before its subject was erased: then it has lost its origin.
func (r *CacheRepository) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	ctx = cache.Together(ctx)
	e, err := r.events.Get(ctx, cache.UUID(id))
	if err != nil || !personal(e) {
		return e, err
	}
	_, err = r.subjects.Get(ctx, cache.Text(e.subject()))
	if errors.Is(err, errErased) {
		e.IP, e.UserAgent, err = "", "", nil
	}
	return e, err
}

// hasOrigins is what the cache knows of a subject. Errors: errErased.
func (r *CacheRepository) hasOrigins(ctx context.Context, subject cache.ID) (bool, error) {
	has, err := r.HasOrigins(ctx, subject.String())
	if err == nil && !has {
		err = errErased
	}
	return has, err
}
