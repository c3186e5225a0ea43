// Package rollout moves a module's storage, one rung at a time, from hand-written SQL to a repository to a read-through
// cache: which rung answers for which key, what is compared with what, and when to step back.
package rollout

import (
	"context"
	"fmt"
	"slices"

	"github.com/strata-accounts/strata/platform/db"
)

// Stage is how far a module has climbed.
type Stage string

// The stages, in order. Only adjacent ones are reached from each other.
const (
	Direct     Stage = "direct"
	Shadow     Stage = "shadow"
	Repository Stage = "repository"
	Cached     Stage = "cached"
)

// Stages lists the stages in order.
var Stages = []Stage{Direct, Shadow, Repository, Cached}

// ParseStage reads a stage's name.
func ParseStage(s string) (Stage, error) {
	if i := slices.Index(Stages, Stage(s)); i >= 0 {
		return Stages[i], nil
	}
	return "", fmt.Errorf("must be one of %v", Stages)
}

// Toucher hears of the cache keys that a transaction is about to change (platform/cache).
type Toucher interface {
	Touch(ctx context.Context, keys ...string) error
}

// Ladder holds the rungs of one module, each a whole implementation R of its Repository.
type Ladder[R any] struct {
	DB         *db.DB
	Stage      Stage
	Direct     R
	Repository R
	Cached     R
	Cache      Toucher
}

// rung returns the implementation that answers for key.
func (l *Ladder[R]) rung(_ string) R {
	switch l.Stage {
	case Repository:
		return l.Repository
	case Cached:
		return l.Cached
	default:
		return l.Direct
	}
}

// Read answers from the rung that key is on. Method names the read in reports.
func Read[R, T any](ctx context.Context, l *Ladder[R], method, key string, read func(context.Context, R) (T, error)) (T, error) {
	return read(ctx, l.rung(key))
}

// Write runs write exactly once, on the rung that key is on, in a transaction in which the cache has been told which
// entries it touches: whatever the stage, so that any mix of stages is safe.
func Write[R, T any](ctx context.Context, l *Ladder[R], method, key string, touches []string, write func(context.Context, R) (T, error)) (T, error) {
	var result T
	err := l.DB.InTx(ctx, func(ctx context.Context) error {
		if l.Cache != nil {
			if err := l.Cache.Touch(ctx, touches...); err != nil {
				return err
			}
		}
		var err error
		result, err = write(ctx, l.rung(key))
		return err
	})
	return result, err
}
