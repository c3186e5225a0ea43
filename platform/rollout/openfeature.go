package rollout

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// ErrManagedElsewhere refuses moves where a flag system makes them.
var ErrManagedElsewhere = errs.New(errs.Conflict, "stages_managed_elsewhere",
	"The stages follow the flags of another system. Change them there.")

// FlagPrefix and a module's name make its flag: an object {"stage": "repository", "percent": 5}, of which percent may be
// left out.
const FlagPrefix = "strata.stage."

// Flags is the actor of the moves that follow flags.
const Flags = "openfeature"

// FlagSource asks an OpenFeature provider for the stages. It is asked at each poll, never for a request.
type FlagSource struct{ client *openfeature.Client }

// NewFlagSource returns a source over a client of any provider.
func NewFlagSource(client *openfeature.Client) *FlagSource { return &FlagSource{client} }

// setting returns what the flag of a module says; false where there is no such flag.
func (f *FlagSource) setting(ctx context.Context, module string) (Setting, bool, error) {
	details, err := f.client.ObjectValueDetails(ctx, FlagPrefix+module, nil, openfeature.NewEvaluationContext(module, nil))
	switch {
	case details.ErrorCode == openfeature.FlagNotFoundCode:
		return Setting{}, false, nil
	case err != nil:
		return Setting{}, false, fmt.Errorf("flag %s%s: %w", FlagPrefix, module, err)
	}
	s, err := parseFlag(details.Value)
	if err != nil {
		return Setting{}, false, fmt.Errorf("flag %s%s: %w", FlagPrefix, module, err)
	}
	return s, true, nil
}

func parseFlag(value any) (Setting, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return Setting{}, errors.New("must be an object")
	}
	name, ok := members["stage"].(string)
	if !ok {
		return Setting{}, errors.New("stage: must be text")
	}
	stage, err := ParseStage(name)
	if err != nil {
		return Setting{}, fmt.Errorf("stage: %w", err)
	}
	percent := 100.0
	switch p := members["percent"].(type) {
	case nil:
	case float64:
		percent = p
	case int:
		percent = float64(p)
	case int64:
		percent = float64(p)
	default:
		return Setting{}, errors.New("percent: must be a number")
	}
	s := NewSetting(stage, percent)
	if !s.valid() {
		return Setting{}, errors.New("percent: must lie in [0, 100]")
	}
	return s, nil
}

// heed moves the modules towards where their flags say, one stage at a time, and reports whether it moved one. A flag
// that cannot be read leaves its module where it is. So does one that has not changed since the guard moved the module
// back: somebody must have looked at it.
func (r *Registry) heed(ctx context.Context, rows []stageRow) (moved bool, err error) {
	if r.flags == nil {
		return false, nil
	}
	for _, row := range rows {
		m := r.module(row.module)
		if m == nil {
			continue
		}
		want, ok, err := r.flags.setting(ctx, m.name)
		r.notice(ctx, m, err)
		if err != nil || !ok {
			continue
		}
		if want.String() != row.wanted {
			if err := r.want(ctx, m.name, want); err != nil {
				return moved, err
			}
			row.held = false
		}
		if row.held || want == row.Setting {
			continue
		}
		err = r.change(ctx, Change{
			Module: m.name, To: row.towards(want), Version: row.version, Actor: Flags, Reason: "The flag says " + want.String() + ".",
		})
		switch {
		case errors.Is(err, ErrVersionChanged), errors.Is(err, ErrInstancesNotCaughtUp): // the next poll looks again
		case err != nil:
			return moved, err
		default:
			moved = true
		}
	}
	return moved, nil
}

// notice logs when a flag cannot be read any more, or can be read again.
func (r *Registry) notice(ctx context.Context, m *Module, err error) {
	switch {
	case err != nil && !m.flagLost:
		r.log.ErrorContext(ctx, "rollout: a flag cannot be read: the module stays where it is", "module", m.name, "error", err)
	case err == nil && m.flagLost:
		r.log.InfoContext(ctx, "rollout: the flag can be read again", "module", m.name)
	}
	m.flagLost = err != nil
}

// want remembers what a flag says, and that it has been changed since the guard acted.
func (r *Registry) want(ctx context.Context, module string, s Setting) error {
	_, err := r.db.Querier(ctx).ExecContext(ctx,
		`UPDATE rollout_stages SET wanted = $2, held = false WHERE module = $1 AND wanted <> $2`, module, s.String())
	return db.Translate(err, nil)
}

// towards returns the next setting on the way to another.
func (s Setting) towards(to Setting) Setting {
	if s.skips(to) {
		return Setting{s.Stage, Whole}
	}
	if s.adjacent(to) {
		return to
	}
	step := 1
	if to.Stage.index() < s.Stage.index() {
		step = -1
	}
	return Setting{Stages[s.Stage.index()+step], Whole}
}
