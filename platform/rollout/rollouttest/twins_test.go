package rollouttest

import (
	"context"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/errs"
)

var notes = db.Migration{Module: "notes", FS: fs.FS(fstest.MapFS{"00001_notes.sql": {Data: []byte(`-- +goose Up
CREATE TABLE notes (id uuid PRIMARY KEY, text json NOT NULL, txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
	created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
`)}})}

// book is a rung that keeps notes with these statements.
type book struct {
	db                       *db.DB
	write, change, complaint string
}

// TestTwinsNoticeWhatDiffers: a comparison that finds nothing in anything would prove nothing.
func TestTwinsNoticeWhatDiffers(t *testing.T) {
	t.Parallel()
	const write, change = `INSERT INTO notes (id, text) VALUES ($1, '{"b":1,  "a":1e3}')`, `UPDATE notes SET updated_at = clock_timestamp() WHERE id = $1`
	open := func(t testing.TB) *db.DB {
		t.Helper()
		return dbtest.Open(t, cache.Migrations(), notes)
	}
	rung := func(name, write, change, complaint string) Rung[book] {
		return Rung[book]{name, func(d *db.DB) book { return book{d, write, change, complaint} }}
	}
	for name, tt := range map[string]struct {
		other Rung[book]
		want  string // part of what is found; empty: nothing
	}{
		"nothing":       {rung("b", write, change, "busy"), ""},
		"another text":  {rung("b", strings.Replace(write, "  ", " ", 1), change, "busy"), "only after b: notes"},
		"another time":  {rung("b", write, strings.Replace(change, "clock_timestamp()", "now() + interval '1 hour'", 1), "busy"), "only after a: notes"},
		"another error": {rung("b", write, change, "timeout"), "call "},
	} {
		t.Run(name, func(t *testing.T) {
			found := differences(t, 1, 40, open, [2]Rung[book]{rung("a", write, change, "busy"), tt.other}, func() Step[book] {
				return func(ctx context.Context, b book, p *Player) error {
					id := p.UUID()
					if _, err := b.db.Querier(ctx).ExecContext(ctx, b.write, id); err != nil {
						return p.Note("write", nil, err)
					}
					if p.IntN(10) == 0 {
						return p.Note("complain", nil, errs.New(errs.Unavailable, b.complaint, ""))
					}
					_, err := b.db.Querier(ctx).ExecContext(ctx, b.change, id)
					return p.Note("change", id, err)
				}
			})
			if all := strings.Join(found, "\n"); tt.want == "" && all != "" || !strings.Contains(all, tt.want) {
				t.Errorf("found %q, want %q", all, tt.want)
			}
		})
	}
}
