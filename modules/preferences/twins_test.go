package preferences

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/rollout/rollouttest"
)

// TestRungsDoTheSame: writes are not compared on live traffic, so here they are.
func TestRungsDoTheSame(t *testing.T) {
	t.Parallel()
	open := func(d *db.DB, stage rollout.Stage) Repository { return newSwitch(d, stage) }
	rollouttest.Twins(t, 400, openDB, rollouttest.Rungs(open), func() rollouttest.Step[Repository] { return (&twin{}).step })
}

// A twin remembers whom it has met.
type twin struct{ users []uuid.UUID }

var (
	twinKeys    = []string{"theme", "editor.tab-size", "z", "a-b"}
	twinValues  = []json.RawMessage{[]byte(`"dark"`), []byte(`1e300`), []byte(`[null, {"b":1,"a":2}]`), []byte(`{ "x" : "\u00e9" }`)}
	errUnwanted = errors.New("the rule says no")
)

// step makes one of all the repository's calls.
func (w *twin) step(ctx context.Context, r Repository, p *rollouttest.Player) error {
	if len(w.users) == 0 || p.IntN(20) == 0 {
		w.users = append(w.users, p.UUID())
	}
	user, key := rollouttest.Pick(p, w.users), rollouttest.Pick(p, twinKeys)
	switch p.IntN(14) {
	case 0, 1:
		created, ok, err := r.CreateDefinition(ctx, w.definition(p, key))
		return p.Note("CreateDefinition", []any{created, ok}, err)
	case 2, 3:
		d, err := r.UpdateDefinition(ctx, key, w.redefine(p, key))
		return p.Note("UpdateDefinition", d, err)
	case 4:
		return p.Note("DeleteDefinition", nil, r.DeleteDefinition(ctx, key))
	case 5, 6, 7, 8, 9:
		v, err := r.UpdateValues(ctx, user, w.set(p))
		return p.Note("UpdateValues", v, err)
	case 10:
		return p.Note("DeleteValues", nil, r.DeleteValues(ctx, user))
	case 11:
		return p.Note("LockDefinitions", nil, r.LockDefinitions(ctx, twinKeys[:p.IntN(len(twinKeys))]))
	case 12:
		found := map[string]int64{}
		err := r.EachValue(ctx, key, func(value json.RawMessage, users int64) error {
			found[string(value)] = users
			return nil
		})
		return p.Note("EachValue", found, err)
	default:
		c, err := r.Definitions(ctx)
		if p.Note("Definitions", append([]Definition{}, c.Definitions...), err) != nil { // the tag is made from points in time
			return err
		}
		v, err := r.Values(ctx, user)
		return p.Note("Values", v, err)
	}
}

func (w *twin) definition(p *rollouttest.Player, key string) Definition {
	return Definition{
		Key: key, Schema: json.RawMessage(rollouttest.Pick(p, []string{`{}`, `{ "type":["string"] }`, `true`})),
		Default: rollouttest.Pick(p, twinValues), Description: rollouttest.Pick(p, []string{"", `"Zoë"`}),
	}
}

// redefine is what a service may do to a definition: something, nothing, or refuse.
func (w *twin) redefine(p *rollouttest.Player, key string) func(*Definition) error {
	to, what := w.definition(p, key), p.IntN(4)
	return func(d *Definition) error {
		switch what {
		case 0:
			d.Schema, d.Default = to.Schema, to.Default
		case 1:
			d.Description = to.Description
		case 2:
			d.Description = to.Description
			return errUnwanted
		}
		return nil
	}
}

// set is what a service may do to a user's values: set, unset, nothing, or refuse.
func (w *twin) set(p *rollouttest.Player) func(*Values) error {
	key, other, value, what := rollouttest.Pick(p, twinKeys), rollouttest.Pick(p, twinKeys), rollouttest.Pick(p, twinValues), p.IntN(6)
	return func(v *Values) error {
		switch what {
		case 0, 1:
			v.set(key, value)
		case 2:
			v.set(key, value)
			v.set(other, twinValues[0])
		case 3:
			v.unset(key)
		case 4:
			v.set(key, value)
			return errUnwanted
		}
		return nil
	}
}
