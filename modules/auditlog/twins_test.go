package auditlog

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

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
	rollouttest.Twins(t, 200, openDB, rollouttest.Rungs(open), func() rollouttest.Step[Repository] { return (&twin{}).step })
}

// A twin remembers what it has made.
type twin struct {
	ids  []uuid.UUID
	page []Event
}

// step makes one of all the repository's calls.
func (w *twin) step(ctx context.Context, r Repository, p *rollouttest.Player) error {
	subject := fmt.Sprintf("user_%d", p.IntN(4))
	if len(w.ids) == 0 || p.IntN(2) == 0 {
		events, origins := w.events(p)
		at, err := r.Append(ctx, events, origins)
		return p.Note("Append", at, err)
	}
	switch p.IntN(6) {
	case 0:
		return p.Note("EraseOrigins", nil, r.EraseOrigins(ctx, subject))
	case 1:
		has, err := r.HasOrigins(ctx, subject)
		return p.Note("HasOrigins", has, err)
	case 2:
		e, err := r.ByID(ctx, rollouttest.Pick(p, append(w.ids, p.UUID())))
		return p.Note("ByID", e, err)
	default:
		f := w.filter(p, subject)
		page, err := r.List(ctx, f)
		w.page = page
		return p.Note("List", page, err)
	}
}

// events returns a batch with its origins, of which several events may share one.
func (w *twin) events(p *rollouttest.Player) (events []Event, origins []Origin) {
	for range 1 + p.IntN(3) {
		e := Event{
			ID: p.UUID(), Action: rollouttest.Pick(p, []string{"user.created", "invoice.paid"}),
			Actor:      Ref{rollouttest.Pick(p, []string{User, Anonymous, System}), fmt.Sprintf("user_%d", p.IntN(4))},
			Target:     rollouttest.Pick(p, []Ref{{}, {User, fmt.Sprintf("user_%d", p.IntN(4))}}),
			RequestID:  rollouttest.Pick(p, []string{"", "r-1"}),
			RecordedBy: rollouttest.Pick(p, []string{"", "crm"}),
			Metadata:   json.RawMessage(rollouttest.Pick(p, []string{`{}`, `{"n":1e300,"b":[null],"a":"\u00e9\"\\"}`})),
		}
		switch p.IntN(3) {
		case 0:
			o := Origin{SubjectID: e.subject(), Salt: p.Bytes(saltLength), IP: "192.0.2.1", UserAgent: `curl "8"`}
			o.Hash = o.commit()
			origins, e.Origin = append(origins, o), o.Hash
		case 1:
			if len(events) > 0 {
				e.Origin = events[0].Origin
			}
		}
		events, w.ids = append(events, e), append(w.ids, e.ID)
	}
	return events, origins
}

func (w *twin) filter(p *rollouttest.Player, subject string) Filter {
	f := Filter{Limit: 1 + p.IntN(5)}
	switch p.IntN(5) {
	case 0:
		f.Subject = subject
	case 1:
		f.Actor = Ref{rollouttest.Pick(p, []string{"", User}), subject}
	case 2:
		f.Target = Ref{"", subject}
	case 3:
		f.Action = "invoice.paid"
	}
	if len(w.page) > 0 && p.IntN(2) == 0 {
		last := w.page[len(w.page)-1]
		f.After = &Position{last.OccurredAt, last.ID}
	}
	if len(w.page) > 0 && p.IntN(4) == 0 {
		f.From = &w.page[0].OccurredAt
	}
	return f
}
