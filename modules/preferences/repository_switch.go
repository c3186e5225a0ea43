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
	return rollout.Exec(ctx, r.ladder, key, nil, func(ctx context.Context, rung Repository) error {
		return rung.EachValue(ctx, key, visit)
	})
}

// CreateDefinition implements Repository.
func (r *SwitchRepository) CreateDefinition(ctx context.Context, d Definition) (Definition, bool, error) {
	var created bool
	touches := []string{definitionsKey}
	stored, err := rollout.Write(ctx, r.ladder, d.Key, touches, func(ctx context.Context, rung Repository) (Definition, error) {
		var stored Definition
		var err error
		stored, created, err = rung.CreateDefinition(ctx, d)
		return stored, err
	})
	return stored, created, err
}

// UpdateDefinition implements Repository.
func (r *SwitchRepository) UpdateDefinition(ctx context.Context, key string, mutate func(*Definition) error) (Definition, error) {
	touches := []string{definitionsKey}
	return rollout.Write(ctx, r.ladder, key, touches, func(ctx context.Context, rung Repository) (Definition, error) {
		return rung.UpdateDefinition(ctx, key, mutate)
	})
}

// DeleteDefinition implements Repository.
func (r *SwitchRepository) DeleteDefinition(ctx context.Context, key string) error {
	touches := []string{definitionsKey}
	return rollout.Exec(ctx, r.ladder, key, touches, func(ctx context.Context, rung Repository) error {
		return rung.DeleteDefinition(ctx, key)
	})
}

// LockDefinitions implements Repository.
func (r *SwitchRepository) LockDefinitions(ctx context.Context, keys []string) error {
	return rollout.Exec(ctx, r.ladder, definitionsKey, nil, func(ctx context.Context, rung Repository) error {
		return rung.LockDefinitions(ctx, keys)
	})
}

// UpdateValues implements Repository.
func (r *SwitchRepository) UpdateValues(ctx context.Context, userID uuid.UUID, mutate func(*Values) error) (Values, error) {
	touches := []string{cacheKey(userID)}
	return rollout.Write(ctx, r.ladder, ids.Key(userID), touches, func(ctx context.Context, rung Repository) (Values, error) {
		return rung.UpdateValues(ctx, userID, mutate)
	})
}

// DeleteValues implements Repository.
func (r *SwitchRepository) DeleteValues(ctx context.Context, userID uuid.UUID) error {
	touches := []string{cacheKey(userID)}
	return rollout.Exec(ctx, r.ladder, ids.Key(userID), touches, func(ctx context.Context, rung Repository) error {
		return rung.DeleteValues(ctx, userID)
	})
}
