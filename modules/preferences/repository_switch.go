package preferences

import (
	"context"
	"encoding/json"

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

// definitionsKey is the entity key of the catalogue.
const definitionsKey = definitionsKind + ":" + allDefinitions

// cacheKey is the entity key of what a user has set.
func cacheKey(userID uuid.UUID) string { return valuesKind + ":" + userID.String() }

// Definitions implements Reader.
func (r *SwitchRepository) Definitions(ctx context.Context) (Catalogue, error) {
	return rollout.Read(ctx, r.ladder, "Definitions", definitionsKey, func(ctx context.Context, rung Reader) (Catalogue, error) {
		return rung.Definitions(ctx)
	})
}

// Values implements Reader.
func (r *SwitchRepository) Values(ctx context.Context, userID uuid.UUID) (Values, error) {
	return rollout.Read(ctx, r.ladder, "Values", ids.Key(userID), func(ctx context.Context, rung Reader) (Values, error) {
		return rung.Values(ctx, userID)
	})
}

// EachValue implements Repository.
func (r *SwitchRepository) EachValue(ctx context.Context, key string, visit func(json.RawMessage, int64) error) error {
	_, err := rollout.Write(ctx, r.ladder, "EachValue", key, nil, func(ctx context.Context, rung Repository) (none, error) {
		return none{}, rung.EachValue(ctx, key, visit)
	})
	return err
}

// CreateDefinition implements Repository.
func (r *SwitchRepository) CreateDefinition(ctx context.Context, d Definition) (Definition, bool, error) {
	var created bool
	stored, err := define(ctx, r, "CreateDefinition", d.Key, func(ctx context.Context, rung Repository) (stored Definition, err error) {
		stored, created, err = rung.CreateDefinition(ctx, d)
		return stored, err
	})
	return stored, created, err
}

// UpdateDefinition implements Repository.
func (r *SwitchRepository) UpdateDefinition(ctx context.Context, key string, mutate func(*Definition) error) (Definition, error) {
	return define(ctx, r, "UpdateDefinition", key, func(ctx context.Context, rung Repository) (Definition, error) {
		return rung.UpdateDefinition(ctx, key, mutate)
	})
}

// DeleteDefinition implements Repository.
func (r *SwitchRepository) DeleteDefinition(ctx context.Context, key string) error {
	_, err := define(ctx, r, "DeleteDefinition", key, func(ctx context.Context, rung Repository) (none, error) {
		return none{}, rung.DeleteDefinition(ctx, key)
	})
	return err
}

// LockDefinitions implements Repository.
func (r *SwitchRepository) LockDefinitions(ctx context.Context, keys []string) error {
	_, err := rollout.Write(ctx, r.ladder, "LockDefinitions", definitionsKey, nil, func(ctx context.Context, rung Repository) (none, error) {
		return none{}, rung.LockDefinitions(ctx, keys)
	})
	return err
}

// UpdateValues implements Repository.
func (r *SwitchRepository) UpdateValues(ctx context.Context, userID uuid.UUID, mutate func(*Values) error) (Values, error) {
	return set(ctx, r, "UpdateValues", userID, func(ctx context.Context, rung Repository) (Values, error) {
		return rung.UpdateValues(ctx, userID, mutate)
	})
}

// DeleteValues implements Repository.
func (r *SwitchRepository) DeleteValues(ctx context.Context, userID uuid.UUID) error {
	_, err := set(ctx, r, "DeleteValues", userID, func(ctx context.Context, rung Repository) (none, error) {
		return none{}, rung.DeleteValues(ctx, userID)
	})
	return err
}

type none struct{}

// define runs a write that changes the catalogue's cached entry.
func define[T any](ctx context.Context, r *SwitchRepository, method, key string, do func(context.Context, Repository) (T, error)) (T, error) {
	return rollout.Write(ctx, r.ladder, method, key, []string{definitionsKey}, do)
}

// set runs a write that changes the user's cached entry.
func set[T any](ctx context.Context, r *SwitchRepository, method string, userID uuid.UUID, do func(context.Context, Repository) (T, error)) (T, error) {
	return rollout.Write(ctx, r.ladder, method, ids.Key(userID), []string{cacheKey(userID)}, do)
}
