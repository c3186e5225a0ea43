package auditlog

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
)

// exportPage is how many events an export reads at a time.
const exportPage = 1000

// Service records events and reads them back.
type Service struct {
	repo Repository
}

// Record stores events, in the transaction that ctx carries or in one of their own, and returns them as stored. ID and
// OccurredAt are set here. All are recorded or none.
//
// Errors: errs.ErrInvalid with Fields, whose pointers start with the event's index where there are several.
func (s *Service) Record(ctx context.Context, events ...Event) ([]Event, error) {
	if len(events) == 0 {
		return nil, nil
	}
	recorded := make([]Event, len(events))
	var fields []errs.Field
	for i, e := range events {
		at := ""
		if len(events) > 1 {
			at = fmt.Sprintf("/%d", i)
		}
		fields = append(fields, e.normalize(at)...)
		e.ID = ids.New()
		recorded[i] = e
	}
	if err := errs.Violated(fields); err != nil {
		return nil, err
	}
	origins := originsOf(recorded)
	occurredAt, err := s.repo.Append(ctx, recorded, origins)
	if err != nil {
		return nil, err
	}
	for i := range recorded {
		recorded[i].OccurredAt = occurredAt
	}
	return recorded, nil
}

// ByID returns an event. Errors: ErrNotFound.
func (s *Service) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	return s.repo.ByID(ctx, id)
}

// List returns a page of at most f.Limit events, newest first.
func (s *Service) List(ctx context.Context, f Filter) ([]Event, error) {
	return s.repo.List(ctx, f)
}

// Export gives every event that f selects to visit, newest first, in constant memory. It reads page by page: events
// recorded meanwhile may be missing, and no transaction stays open. An error of visit ends it, and is returned.
func (s *Service) Export(ctx context.Context, f Filter, visit func(Event) error) error {
	f.Limit = exportPage
	for {
		events, err := s.repo.List(ctx, f)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := visit(e); err != nil {
				return err
			}
		}
		if len(events) < f.Limit {
			return nil
		}
		last := events[len(events)-1]
		f.After = &Position{OccurredAt: last.OccurredAt, ID: last.ID}
	}
}

// Erase removes for good, in the transaction that ctx carries, the addresses and user agents of a person, given by the
// id that events have as their actor or target. The events stay, with the id alone, and so do their proofs.
func (s *Service) Erase(ctx context.Context, subjectID string) error {
	return s.repo.EraseOrigins(ctx, subjectID)
}
