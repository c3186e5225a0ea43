package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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

// A twin remembers what it has made.
type twin struct {
	ids    []uuid.UUID
	tokens []Token
	page   []User
}

var errUnwanted = errors.New("the rule says no")

// step makes one of all the repository's calls.
func (w *twin) step(ctx context.Context, r Repository, p *rollouttest.Player) error {
	if len(w.ids) == 0 || p.IntN(4) == 0 {
		u := w.user(p, p.UUID())
		w.ids = append(w.ids, u.ID)
		created, err := r.Create(ctx, u)
		return p.Note("Create", created, err)
	}
	id := rollouttest.Pick(p, w.ids)
	switch p.IntN(14) {
	case 0:
		batch := make([]ImportUser, 1+p.IntN(4))
		for i := range batch {
			batch[i] = ImportUser{w.user(p, p.UUID()), rollouttest.Pick(p, []string{"", "$argon2id$imported"})}
			w.ids = append(w.ids, batch[i].User.ID)
		}
		done, err := r.Import(ctx, batch)
		return p.Note("Import", done, err)
	case 1, 2, 3:
		u, err := r.Update(ctx, id, w.change(p))
		return p.Note("Update", u, err)
	case 4:
		u, err := r.SignedIn(ctx, id)
		return p.Note("SignedIn", u, err)
	case 5:
		return p.Note("Hold", nil, r.Hold(ctx, id))
	case 6:
		return p.Note("Delete", nil, r.Delete(ctx, id))
	case 7, 8:
		return w.credential(ctx, r, p, id)
	case 9, 10:
		return w.token(ctx, r, p, id)
	default:
		return w.read(ctx, r, p, id)
	}
}

// email is one of few, so that they are taken, and differ in case.
func (w *twin) email(p *rollouttest.Player) string {
	email := fmt.Sprintf("ada%d@example.com", p.IntN(60))
	if p.IntN(2) == 0 {
		return strings.ToUpper(email)
	}
	return email
}

func (w *twin) user(p *rollouttest.Player, id uuid.UUID) User {
	return User{
		ID: id, Email: w.email(p), EmailVerified: p.IntN(2) == 0, Name: rollouttest.Pick(p, []string{"", "Ada", `Zoë "%_\"`}),
		Status: rollouttest.Pick(p, []Status{Active, Active, Suspended, Deleted}), Metadata: w.metadata(p),
	}
}

func (w *twin) metadata(p *rollouttest.Player) json.RawMessage {
	return json.RawMessage(rollouttest.Pick(p, []string{
		`{}`, `{"plan": "free"}`, `{"n":1e300,"b":[null,true]}`, `{"a":"\u00e9\"\\","a":2}`, `{ "z" : {} }`,
	}))
}

// change is what a service may do to a user: something, nothing, or refuse.
func (w *twin) change(p *rollouttest.Player) func(*User) error {
	to, what := w.user(p, uuid.Nil), p.IntN(7)
	return func(u *User) error {
		switch what {
		case 0:
			u.Email = to.Email
		case 1:
			u.Name, u.EmailVerified = to.Name, to.EmailVerified
		case 2:
			u.Status = to.Status
		case 3:
			u.Metadata = to.Metadata
		case 4:
			u.Email, u.Name = to.Email, to.Name
		case 5:
			u.Name = to.Name
			return errUnwanted
		}
		return nil
	}
}

func (w *twin) credential(ctx context.Context, r Repository, p *rollouttest.Player, id uuid.UUID) error {
	hashes := []string{"$argon2id$a", "$argon2id$b"}
	switch p.IntN(3) {
	case 0:
		swapped, err := r.SwapCredential(ctx, id, rollouttest.Pick(p, hashes), rollouttest.Pick(p, hashes))
		return p.Note("SwapCredential", swapped, err)
	default:
		return p.Note("SetCredential", nil, r.SetCredential(ctx, id, rollouttest.Pick(p, hashes)))
	}
}

func (w *twin) token(ctx context.Context, r Repository, p *rollouttest.Player, id uuid.UUID) error {
	made := Token{
		Hash: p.Bytes(32), UserID: id, Purpose: rollouttest.Pick(p, []Purpose{EmailVerification, PasswordReset}),
		Email: w.email(p), ExpiresIn: p.Hours(-1, 2),
	}
	w.tokens = append(w.tokens, made)
	known := rollouttest.Pick(p, w.tokens)
	switch p.IntN(6) {
	case 0:
		taken, err := r.TakeToken(ctx, known.Purpose, known.Hash)
		return p.Note("TakeToken", taken, err)
	case 1:
		return p.Note("DeleteTokens", nil, r.DeleteTokens(ctx, id))
	case 2:
		n, err := r.DeleteExpiredTokens(ctx, 10)
		return p.Note("DeleteExpiredTokens", n, err)
	default:
		expires, err := r.CreateToken(ctx, made)
		return p.Note("CreateToken", expires, err)
	}
}

func (w *twin) read(ctx context.Context, r Repository, p *rollouttest.Player, id uuid.UUID) error {
	switch p.IntN(4) {
	case 0:
		u, err := r.ByID(ctx, id)
		return p.Note("ByID", u, err)
	case 1:
		u, err := r.ByEmail(ctx, w.email(p))
		return p.Note("ByEmail", u, err)
	case 2:
		hash, err := r.Credential(ctx, id)
		return p.Note("Credential", hash, err)
	default:
		f := Filter{
			Status: rollouttest.Pick(p, []Status{"", "", Active, Deleted}), Query: rollouttest.Pick(p, []string{"", "", "ADA1", `zoë "%`}),
			Email: rollouttest.Pick(p, []string{"", "", w.email(p)}), Limit: 1 + p.IntN(10),
		}
		if len(w.page) > 0 && p.IntN(2) == 0 {
			last := w.page[len(w.page)-1]
			f.After = &Position{last.CreatedAt, last.ID}
		}
		page, err := r.List(ctx, f)
		w.page = page
		return p.Note("List", page, err)
	}
}
