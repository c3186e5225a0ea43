package auditlog

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
)

// SwitchRepository answers from the rung that the ladder picks for a key. It is the one place where a write names the
// cache entries it touches, so that no rung can forget to.
type SwitchRepository struct {
	ladder *rollout.Ladder[Repository]
}

var _ Repository = (*SwitchRepository)(nil)

// NewSwitchRepository returns a SwitchRepository over these rungs.
func NewSwitchRepository(l *rollout.Ladder[Repository]) *SwitchRepository {
	return &SwitchRepository{ladder: l}
}

// ByID implements Reader.
func (r *SwitchRepository) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	return rollout.Read(ctx, r.ladder, "ByID", ids.Key(id), func(ctx context.Context, rung Reader) (Event, error) {
		return rung.ByID(ctx, id)
	})
}

// List implements Reader.
func (r *SwitchRepository) List(ctx context.Context, f Filter) ([]Event, error) {
	key := f.Subject + f.Actor.ID + f.Target.ID + f.Action
	return rollout.Read(ctx, r.ladder, "List", key, func(ctx context.Context, rung Reader) ([]Event, error) {
		return rung.List(ctx, f)
	})
}

// HasOrigins implements Reader.
func (r *SwitchRepository) HasOrigins(ctx context.Context, subjectID string) (bool, error) {
	return rollout.Read(ctx, r.ladder, "HasOrigins", subjectID, func(ctx context.Context, rung Reader) (bool, error) {
		return rung.HasOrigins(ctx, subjectID)
	})
}

// Append implements Repository. The events are new, under ids that nobody can have asked for: no entry is touched.
func (r *SwitchRepository) Append(ctx context.Context, events []Event, origins []Origin) (time.Time, error) {
	return rollout.Write(ctx, r.ladder, "append", nil, func(ctx context.Context, rung Repository) (time.Time, error) {
		return rung.Append(ctx, events, origins)
	})
}

// EraseOrigins implements Repository.
func (r *SwitchRepository) EraseOrigins(ctx context.Context, subjectID string) error {
	touches := []string{subjectKind + ":" + subjectID}
	return rollout.Exec(ctx, r.ladder, subjectID, touches, func(ctx context.Context, rung Repository) error {
		return rung.EraseOrigins(ctx, subjectID)
	})
}
