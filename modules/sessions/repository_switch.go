package sessions

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
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

// cacheKey is the entity key of the session with this token: what a check has at hand.
func cacheKey(tokenHash Hash) string { return cacheKind + ":" + tokenHash.String() }

func cacheKeys(list []Session) []string {
	keys := make([]string, len(list))
	for i, s := range list {
		keys[i] = cacheKey(s.TokenHash)
	}
	return keys
}

// ByToken implements Reader.
func (r *SwitchRepository) ByToken(ctx context.Context, tokenHash Hash) (Session, error) {
	return rollout.Read(ctx, r.ladder, "ByToken", tokenHash.key(), func(ctx context.Context, rung Reader) (Session, error) {
		return rung.ByToken(ctx, tokenHash)
	})
}

// List implements Reader.
func (r *SwitchRepository) List(ctx context.Context, userID uuid.UUID) ([]Session, error) {
	return rollout.Read(ctx, r.ladder, "List", ids.Key(userID), func(ctx context.Context, rung Reader) ([]Session, error) {
		return rung.List(ctx, userID)
	})
}

// Create implements Repository. The token is new, nobody can have asked for it: no entry is touched.
func (r *SwitchRepository) Create(ctx context.Context, n NewSession) (Session, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(n.UserID), nil, func(ctx context.Context, rung Repository) (Session, error) {
		return rung.Create(ctx, n)
	})
}

// underway is what Lock and LockAll touch. Who locks sessions to end them may find that another has just ended them, and
// answers that they are dead: so they must be, also where that other one still waits for the cache.
var underway = []string{cache.Underway(cacheKind)}

// Lock implements Repository.
func (r *SwitchRepository) Lock(ctx context.Context, id uuid.UUID) (Session, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(id), underway, func(ctx context.Context, rung Repository) (Session, error) {
		return rung.Lock(ctx, id)
	})
}

// LockAll implements Repository. Where it skips some, those beyond them are surplus, of which nobody is told.
func (r *SwitchRepository) LockAll(ctx context.Context, userID uuid.UUID, skip int) ([]Session, error) {
	var touches []string
	if skip == 0 {
		touches = underway
	}
	return rollout.Write(ctx, r.ladder, ids.Key(userID), touches, func(ctx context.Context, rung Repository) ([]Session, error) {
		return rung.LockAll(ctx, userID, skip)
	})
}

// Rotate implements Repository. Nobody can have asked for the new token: the old one's entry is all that is touched.
func (r *SwitchRepository) Rotate(ctx context.Context, s Session, tokenHash Hash) (Session, error) {
	touches := []string{cacheKey(s.TokenHash)}
	return rollout.Write(ctx, r.ladder, ids.Key(s.UserID), touches, func(ctx context.Context, rung Repository) (Session, error) {
		return rung.Rotate(ctx, s, tokenHash)
	})
}

// Delete implements Repository.
func (r *SwitchRepository) Delete(ctx context.Context, locked []Session) error {
	if len(locked) == 0 {
		return nil
	}
	return rollout.Exec(ctx, r.ladder, ids.Key(locked[0].UserID), cacheKeys(locked), func(ctx context.Context, rung Repository) error {
		return rung.Delete(ctx, locked)
	})
}

// Seen implements Repository. It touches no entry: a cached session may be behind the time of its last use, and one
// whose idle life seems to be over is read again.
func (r *SwitchRepository) Seen(ctx context.Context, batch []Use, p SeenPolicy) (int64, error) {
	return rollout.Write(ctx, r.ladder, "seen", nil, func(ctx context.Context, rung Repository) (int64, error) {
		return rung.Seen(ctx, batch, p)
	})
}

// DeleteExpired implements Repository. It touches no entry: an expired session is none, cached or not.
func (r *SwitchRepository) DeleteExpired(ctx context.Context, limit int) (int64, error) {
	return rollout.Write(ctx, r.ladder, "expired", nil, func(ctx context.Context, rung Repository) (int64, error) {
		return rung.DeleteExpired(ctx, limit)
	})
}

// CountAttempt implements Repository.
func (r *SwitchRepository) CountAttempt(ctx context.Context, a Attempt) (Tally, error) {
	return rollout.Write(ctx, r.ladder, a.Account.key(), nil, func(ctx context.Context, rung Repository) (Tally, error) {
		return rung.CountAttempt(ctx, a)
	})
}

// ForgiveAttempt implements Repository.
func (r *SwitchRepository) ForgiveAttempt(ctx context.Context, key Hash) error {
	return rollout.Exec(ctx, r.ladder, key.key(), nil, func(ctx context.Context, rung Repository) error {
		return rung.ForgiveAttempt(ctx, key)
	})
}

// Recognise implements Repository.
func (r *SwitchRepository) Recognise(ctx context.Context, client Hash, userID uuid.UUID) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(userID), nil, func(ctx context.Context, rung Repository) error {
		return rung.Recognise(ctx, client, userID)
	})
}

// Forget implements Repository.
func (r *SwitchRepository) Forget(ctx context.Context, userID uuid.UUID) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(userID), nil, func(ctx context.Context, rung Repository) error {
		return rung.Forget(ctx, userID)
	})
}

// DeleteStale implements Repository.
func (r *SwitchRepository) DeleteStale(ctx context.Context, unseen time.Duration, limit int) (int64, error) {
	return rollout.Write(ctx, r.ladder, "stale", nil, func(ctx context.Context, rung Repository) (int64, error) {
		return rung.DeleteStale(ctx, unseen, limit)
	})
}
