package sessions

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/rollout/rollouttest"
)

// TestRungsDoTheSame: writes are not compared on live traffic, so here they are.
func TestRungsDoTheSame(t *testing.T) {
	t.Parallel()
	open := func(d *db.DB, stage rollout.Stage) Repository { // without a cache, whose relay would empty the outbox
		return NewSwitchRepository(&rollout.Ladder[Repository]{
			DB: d, Stage: stage, Direct: NewDirectRepository(d), Repository: NewPostgresRepository(d),
		})
	}
	rollouttest.Twins(t, 400, openDB, rollouttest.Rungs(open), func() rollouttest.Step[Repository] { return (&twin{}).step })
}

// A twin remembers what it has made.
type twin struct {
	users  []uuid.UUID
	ids    []uuid.UUID
	tokens []Hash
	keys   []Hash
}

// step makes one of all the repository's calls.
func (w *twin) step(ctx context.Context, r Repository, p *rollouttest.Player) error {
	if len(w.ids) == 0 || p.IntN(3) == 0 {
		return w.create(ctx, r, p)
	}
	id, user, token := rollouttest.Pick(p, w.ids), rollouttest.Pick(p, w.users), rollouttest.Pick(p, w.tokens)
	switch p.IntN(12) {
	case 0:
		s, err := r.ByToken(ctx, token)
		return p.Note("ByToken", s, err)
	case 1:
		list, err := r.List(ctx, user)
		return p.Note("List", list, err)
	case 2, 3, 4:
		return w.rotate(ctx, r, p, id)
	case 5, 6:
		locked, err := r.LockAll(ctx, user, p.IntN(3))
		if p.Note("LockAll", locked, err) != nil || len(locked) == 0 {
			return err
		}
		return p.Note("Delete", nil, r.Delete(ctx, locked[:1]))
	case 7, 8:
		batch := make([]Use, 1+p.IntN(3))
		for i := range batch {
			batch[i] = Use{rollouttest.Pick(p, w.ids), p.Hours(-4, 1)} // those to come as well: no session here is old
		}
		n, err := r.Seen(ctx, batch, SeenPolicy{Idle: p.Hours(1, 3), Interval: p.Hours(0, 2)})
		return p.Note("Seen", n, err)
	case 9:
		n, err := r.DeleteExpired(ctx, 1+p.IntN(3))
		return p.Note("DeleteExpired", n, err)
	default:
		return w.attempt(ctx, r, p, user)
	}
}

func (w *twin) create(ctx context.Context, r Repository, p *rollouttest.Player) error {
	if len(w.users) == 0 || p.IntN(4) == 0 {
		w.users = append(w.users, p.UUID())
	}
	n := NewSession{
		ID: p.UUID(), UserID: rollouttest.Pick(p, w.users), TokenHash: Hash(p.Bytes(32)), IP: "192.0.2.1", UserAgent: `curl "8"`,
		Idle: p.Hours(-1, 2), Lifetime: p.Hours(2, 5),
	}
	w.ids, w.tokens = append(w.ids, n.ID), append(w.tokens, n.TokenHash)
	s, err := r.Create(ctx, n)
	return p.Note("Create", s, err)
}

func (w *twin) rotate(ctx context.Context, r Repository, p *rollouttest.Player, id uuid.UUID) error {
	s, err := r.Lock(ctx, id)
	if p.Note("Lock", s, err) != nil {
		return err
	}
	to := Hash(p.Bytes(32))
	w.tokens = append(w.tokens, to)
	s, err = r.Rotate(ctx, s, to)
	return p.Note("Rotate", s, err)
}

// attempt makes one of the calls about attempts to sign in. What remains of a count's time is told to the hour.
func (w *twin) attempt(ctx context.Context, r Repository, p *rollouttest.Player, user uuid.UUID) error {
	client := hashOf(fmt.Sprint("client", p.IntN(4)))
	w.keys = append(w.keys, client)
	switch p.IntN(8) {
	case 0:
		return p.Note("ForgiveAttempt", nil, r.ForgiveAttempt(ctx, rollouttest.Pick(p, w.keys)))
	case 1:
		return p.Note("Recognise", nil, r.Recognise(ctx, client, user))
	case 2:
		return p.Note("Forget", nil, r.Forget(ctx, user))
	case 3:
		n, err := r.DeleteStale(ctx, p.Hours(-1, 1), 1000)
		return p.Note("DeleteStale", n, err)
	default:
		a := Attempt{Account: hashOf(fmt.Sprint("account", p.IntN(3))), Client: client, Max: 3, Window: p.Hours(-1, 2)}
		w.keys = append(w.keys, a.Account)
		tally, err := r.CountAttempt(ctx, a)
		tally.ResetAfter = tally.ResetAfter.Round(time.Hour)
		return p.Note("CountAttempt", tally, err)
	}
}
