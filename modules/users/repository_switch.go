package users

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

// CacheKey is the entity key of a user.
func CacheKey(id uuid.UUID) string { return cacheKind + ":" + id.String() }

// touches is what a change of the user's row touches. Credentials and tokens are never cached.
func touches(id uuid.UUID) []string { return []string{CacheKey(id)} }

// ByID implements Reader.
func (r *SwitchRepository) ByID(ctx context.Context, id uuid.UUID) (User, error) {
	return rollout.Read(ctx, r.ladder, "ByID", ids.Key(id), func(ctx context.Context, rung Reader) (User, error) {
		return rung.ByID(ctx, id)
	})
}

// ByEmail implements Reader.
func (r *SwitchRepository) ByEmail(ctx context.Context, email string) (User, error) {
	return rollout.Read(ctx, r.ladder, "ByEmail", email, func(ctx context.Context, rung Reader) (User, error) {
		return rung.ByEmail(ctx, email)
	})
}

// List implements Reader.
func (r *SwitchRepository) List(ctx context.Context, f Filter) ([]User, error) {
	return rollout.Read(ctx, r.ladder, "List", f.Email+f.Query, func(ctx context.Context, rung Reader) ([]User, error) {
		return rung.List(ctx, f)
	})
}

// Credential implements Reader.
func (r *SwitchRepository) Credential(ctx context.Context, id uuid.UUID) (string, error) {
	return rollout.Read(ctx, r.ladder, "Credential", ids.Key(id), func(ctx context.Context, rung Reader) (string, error) {
		return rung.Credential(ctx, id)
	})
}

// Create implements Repository.
func (r *SwitchRepository) Create(ctx context.Context, u User) (User, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(u.ID), touches(u.ID), func(ctx context.Context, rung Repository) (User, error) {
		return rung.Create(ctx, u)
	})
}

// Import implements Repository. The users are new, under ids that nobody can have asked for: no entry is touched.
func (r *SwitchRepository) Import(ctx context.Context, batch []ImportUser) ([]Imported, error) {
	return rollout.Write(ctx, r.ladder, "import", nil, func(ctx context.Context, rung Repository) ([]Imported, error) {
		return rung.Import(ctx, batch)
	})
}

// Update implements Repository.
func (r *SwitchRepository) Update(ctx context.Context, id uuid.UUID, mutate func(*User) error) (User, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(id), touches(id), func(ctx context.Context, rung Repository) (User, error) {
		return rung.Update(ctx, id, mutate)
	})
}

// SignedIn implements Repository.
func (r *SwitchRepository) SignedIn(ctx context.Context, id uuid.UUID) (User, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(id), touches(id), func(ctx context.Context, rung Repository) (User, error) {
		return rung.SignedIn(ctx, id)
	})
}

// Hold implements Repository.
func (r *SwitchRepository) Hold(ctx context.Context, id uuid.UUID) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(id), nil, func(ctx context.Context, rung Repository) error {
		return rung.Hold(ctx, id)
	})
}

// Delete implements Repository.
func (r *SwitchRepository) Delete(ctx context.Context, id uuid.UUID) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(id), touches(id), func(ctx context.Context, rung Repository) error {
		return rung.Delete(ctx, id)
	})
}

// SetCredential implements Repository.
func (r *SwitchRepository) SetCredential(ctx context.Context, id uuid.UUID, hash string) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(id), nil, func(ctx context.Context, rung Repository) error {
		return rung.SetCredential(ctx, id, hash)
	})
}

// SwapCredential implements Repository.
func (r *SwitchRepository) SwapCredential(ctx context.Context, id uuid.UUID, old, hash string) (bool, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(id), nil, func(ctx context.Context, rung Repository) (bool, error) {
		return rung.SwapCredential(ctx, id, old, hash)
	})
}

// CreateToken implements Repository.
func (r *SwitchRepository) CreateToken(ctx context.Context, t Token) (time.Time, error) {
	return rollout.Write(ctx, r.ladder, ids.Key(t.UserID), nil, func(ctx context.Context, rung Repository) (time.Time, error) {
		return rung.CreateToken(ctx, t)
	})
}

// TakeToken implements Repository.
func (r *SwitchRepository) TakeToken(ctx context.Context, purpose Purpose, hash []byte) (Token, error) {
	return rollout.Write(ctx, r.ladder, string(hash), nil, func(ctx context.Context, rung Repository) (Token, error) {
		return rung.TakeToken(ctx, purpose, hash)
	})
}

// DeleteTokens implements Repository.
func (r *SwitchRepository) DeleteTokens(ctx context.Context, id uuid.UUID) error {
	return rollout.Exec(ctx, r.ladder, ids.Key(id), nil, func(ctx context.Context, rung Repository) error {
		return rung.DeleteTokens(ctx, id)
	})
}

// DeleteExpiredTokens implements Repository.
func (r *SwitchRepository) DeleteExpiredTokens(ctx context.Context, limit int) (int64, error) {
	return rollout.Write(ctx, r.ladder, "", nil, func(ctx context.Context, rung Repository) (int64, error) {
		return rung.DeleteExpiredTokens(ctx, limit)
	})
}
