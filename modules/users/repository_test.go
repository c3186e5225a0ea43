package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
)

// TestRepository runs the one conformance suite on every rung, and on the switch at every stage: what passes here is
// what a caller sees, whoever answers.
func TestRepository(t *testing.T) {
	rungs := map[string]func(*testing.T, *db.DB) Repository{
		"direct":   func(_ *testing.T, d *db.DB) Repository { return NewDirectRepository(d) },
		"postgres": func(_ *testing.T, d *db.DB) Repository { return NewPostgresRepository(d) },
	}
	for _, stage := range []rollout.Stage{rollout.Direct, rollout.Shadow, rollout.Repository} {
		rungs["switch/"+string(stage)] = func(_ *testing.T, d *db.DB) Repository { return newSwitch(d, stage) }
	}
	for name, configure := range cachetest.Deployments(t) {
		rungs["switch/cached/"+name] = func(t *testing.T, d *db.DB) Repository { return newCached(t, d, configure) }
	}
	for name, open := range rungs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t)
			testRepository(t, d, open(t, d))
		})
	}
}

// openDB returns an empty database with the tables that the module needs.
func openDB(t testing.TB) *db.DB {
	t.Helper()
	return cachetest.OpenDB(t, Migrations())
}

// newSwitch returns the ladder at a stage below the cache.
func newSwitch(d *db.DB, stage rollout.Stage) *SwitchRepository {
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: stage, Direct: NewDirectRepository(d), Repository: NewPostgresRepository(d),
	})
}

// newCached returns the ladder at its top, over a cache of its own.
func newCached(t testing.TB, d *db.DB, configure func(*cache.Config)) *SwitchRepository {
	t.Helper()
	c, _ := cachetest.Start(t, d, configure)
	postgres := NewPostgresRepository(d)
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: rollout.Cached, Direct: NewDirectRepository(d), Repository: postgres,
		Cached: NewCacheRepository(postgres, c), Cache: c,
	})
}

func testRepository(t *testing.T, d *db.DB, r Repository) {
	for name, test := range map[string]func(*testing.T, *db.DB, Repository){
		"Create": testCreate, "ByEmail": testByEmail, "Update": testUpdate, "UpdateConcurrently": testUpdateConcurrently, "Delete": testDelete, "Hold": testHold,
		"List": testList, "Query": testQuery, "Credential": testCredential, "SignedIn": testSignedIn, "Token": testToken,
		"Import": testImport, "Transaction": testTransaction,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.SQL().ExecContext(t.Context(), `TRUNCATE users CASCADE`); err != nil {
				t.Fatal(err)
			}
			test(t, d, r)
		})
	}
}

func mustCreate(t *testing.T, r Repository, email string) User {
	t.Helper()
	u, err := r.Create(t.Context(), User{
		ID: ids.New(), Email: email, Name: "Ada", Status: Active, Metadata: json.RawMessage(`{"plan": "free"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func wantSame(t *testing.T, what string, got, want User) {
	t.Helper()
	if !got.equal(want) || got.ID != want.ID || got.Version != want.Version || !got.CreatedAt.Equal(want.CreatedAt) ||
		!got.UpdatedAt.Equal(want.UpdatedAt) || (got.LastSignInAt == nil) != (want.LastSignInAt == nil) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func testCreate(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "Ada@Example.com")
	if u.Email != "Ada@Example.com" || u.Version != 1 || u.Status != Active || u.EmailVerified || u.LastSignInAt != nil ||
		u.CreatedAt.IsZero() || !u.UpdatedAt.Equal(u.CreatedAt) || string(u.Metadata) != `{"plan": "free"}` {
		t.Errorf("created %+v", u)
	}
	byID, err := r.ByID(ctx, u.ID)
	wantError(t, "ByID", err, nil)
	wantSame(t, "ByID", byID, u)
	byEmail, err := r.ByEmail(ctx, "aDA@example.COM")
	wantError(t, "ByEmail", err, nil)
	wantSame(t, "ByEmail", byEmail, u)

	_, err = r.Create(ctx, User{ID: ids.New(), Email: "ADA@example.com", Status: Active, Metadata: json.RawMessage(`{}`)})
	wantError(t, "an e-mail that differs in case", err, ErrEmailTaken)
	_, err = r.ByID(ctx, ids.New())
	wantError(t, "ByID of nobody", err, ErrNotFound)
	_, err = r.ByEmail(ctx, "nobody@example.com")
	wantError(t, "ByEmail of nobody", err, ErrNotFound)
}

// testByEmail passes addresses from one user to another.
func testByEmail(t *testing.T, _ *db.DB, r Repository) {
	const first, second = "ada@example.com", "lovelace@example.com"
	want := func(what, email string, owner uuid.UUID) {
		t.Helper()
		for range 3 { // by then from memory, where there is one
			u, err := r.ByEmail(t.Context(), email)
			if owner == uuid.Nil {
				wantError(t, what, err, ErrNotFound)
			} else if err != nil || u.ID != owner {
				t.Errorf("%s: %s belongs to %s, %v; want %s", what, email, u.ID, err, owner)
			}
		}
	}
	change := func(id uuid.UUID, email string) {
		t.Helper()
		_, err := r.Update(t.Context(), id, func(u *User) error { u.Email = email; return nil })
		wantError(t, "change the e-mail", err, nil)
	}
	want("nobody's yet", first, uuid.Nil)
	ada := mustCreate(t, r, first).ID
	want("created", first, ada)
	want("in capitals", strings.ToUpper(first), ada)
	change(ada, second)
	want("given up", first, uuid.Nil)
	want("given up, in capitals", strings.ToUpper(first), uuid.Nil)
	want("taken on", second, ada)
	grace := mustCreate(t, r, first).ID
	want("handed on", first, grace)
	want("handed on, in capitals", strings.ToUpper(first), grace)
	wantError(t, "delete", r.Delete(t.Context(), ada), nil)
	want("deleted", second, uuid.Nil)
	change(grace, strings.ToUpper(first))
	want("written otherwise", first, grace)
}

// TestByEmailIsAnsweredFromMemory counts reads of users, which a hint leads to, in the process.
func TestByEmailIsAnsweredFromMemory(t *testing.T) {
	t.Parallel()
	d := openDB(t)
	c, metrics := cachetest.Start(t, d, func(*cache.Config) {})
	r := NewCacheRepository(NewPostgresRepository(d), c)
	u := mustCreate(t, r, "ada@example.com")
	hits := func() (n float64) {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "strata_cache_reads_total" && m.GetLabel()[1].GetValue() == "process" {
					n += m.GetCounter().GetValue()
				}
			}
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); hits() == 0; {
		if got, err := r.ByEmail(t.Context(), u.Email); err != nil || got.ID != u.ID {
			t.Fatalf("ByEmail: %+v, %v", got, err)
		}
		if time.Now().After(deadline) {
			t.Fatal("never answered from memory")
		}
	}
}

func testUpdate(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "ada@example.com")
	mustCreate(t, r, "bob@example.com")
	changed, err := r.Update(ctx, u.ID, func(u *User) error {
		u.Email, u.EmailVerified, u.Name, u.Status = "ada@example.org", true, "", Suspended
		u.Metadata = json.RawMessage(`{}`)
		return nil
	})
	wantError(t, "Update", err, nil)
	if changed.Version != 2 || changed.Email != "ada@example.org" || !changed.EmailVerified || changed.Name != "" ||
		changed.Status != Suspended || string(changed.Metadata) != "{}" || !changed.UpdatedAt.After(u.UpdatedAt) ||
		!changed.CreatedAt.Equal(u.CreatedAt) {
		t.Errorf("updated %+v", changed)
	}
	stored, err := r.ByID(ctx, u.ID)
	wantError(t, "ByID", err, nil)
	wantSame(t, "stored", stored, changed)

	same, err := r.Update(ctx, u.ID, func(*User) error { return nil })
	wantError(t, "an update that changes nothing", err, nil)
	wantSame(t, "an update that changes nothing", same, changed)

	refused := errors.New("refused")
	_, err = r.Update(ctx, u.ID, func(u *User) error { u.Name = "Eve"; return refused })
	wantError(t, "a refused update", err, refused)
	_, err = r.Update(ctx, u.ID, func(u *User) error { u.Email = "BOB@example.com"; return nil })
	wantError(t, "a taken e-mail", err, ErrEmailTaken)
	_, err = r.Update(ctx, ids.New(), func(*User) error { return nil })
	wantError(t, "nobody", err, ErrNotFound)
	stored, _ = r.ByID(ctx, u.ID)
	wantSame(t, "after refused updates", stored, changed)
}

// testUpdateConcurrently loses no update: mutate always sees the latest committed state.
func testUpdateConcurrently(t *testing.T, _ *db.DB, r Repository) {
	u := mustCreate(t, r, "ada@example.com")
	const writers = 8
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			if _, err := r.Update(t.Context(), u.ID, func(u *User) error {
				u.Name += strconv.Itoa(i)
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := r.ByID(t.Context(), u.ID)
	wantError(t, "ByID", err, nil)
	if got.Version != 1+writers || len(got.Name) != len("Ada")+writers {
		t.Errorf("after %d updates: %+v", writers, got)
	}
}

func testDelete(t *testing.T, d *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "ada@example.com")
	wantError(t, "SetCredential", r.SetCredential(ctx, u.ID, "hash"), nil)
	_, err := r.CreateToken(ctx, Token{Hash: []byte("h"), UserID: u.ID, Purpose: PasswordReset, Email: u.Email, ExpiresIn: time.Hour})
	wantError(t, "CreateToken", err, nil)
	wantError(t, "Delete", r.Delete(ctx, u.ID), nil)
	_, err = r.ByID(ctx, u.ID)
	wantError(t, "ByID after Delete", err, ErrNotFound)
	wantError(t, "Delete again", r.Delete(ctx, u.ID), ErrNotFound)
	var left int
	row := d.Querier(ctx).QueryRowContext(ctx, `SELECT (SELECT count(*) FROM user_credentials) + (SELECT count(*) FROM user_tokens)`)
	if err := row.Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left of the user, %v", left, err)
	}
	mustCreate(t, r, "ada@example.com") // the address is free again
}

func testHold(t *testing.T, d *db.DB, r Repository) {
	u := mustCreate(t, r, "ada@example.com")
	deleted := make(chan error, 1)
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		if err := r.Hold(ctx, u.ID); err != nil {
			return err
		}
		go func() { deleted <- r.Delete(t.Context(), u.ID) }()
		select {
		case err := <-deleted:
			return fmt.Errorf("a held user was deleted: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
		_, err := r.ByID(ctx, u.ID)
		return err
	})
	wantError(t, "Hold", err, nil)
	wantError(t, "Delete after the transaction", <-deleted, nil)
	wantError(t, "Hold of nobody", r.Hold(t.Context(), u.ID), ErrNotFound)
}

func emails(users []User) string {
	var s []string
	for _, u := range users {
		s = append(s, strings.TrimSuffix(u.Email, "@example.com"))
	}
	return strings.Join(s, " ")
}

func testList(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	var created []User
	for i := range 7 {
		created = append(created, mustCreate(t, r, fmt.Sprintf("u%d@example.com", i)))
	}
	for id, status := range map[uuid.UUID]Status{created[1].ID: Deleted, created[2].ID: Suspended} {
		_, err := r.Update(ctx, id, func(u *User) error { u.Status = status; return nil })
		wantError(t, "Update", err, nil)
	}
	for _, tt := range []struct {
		name string
		f    Filter
		want string
	}{
		{"newest first, without the deleted", Filter{Limit: 10}, "u6 u5 u4 u3 u2 u0"},
		{"by status", Filter{Limit: 10, Status: Suspended}, "u2"},
		{"the deleted", Filter{Limit: 10, Status: Deleted}, "u1"},
		{"by e-mail", Filter{Limit: 10, Email: "U3@example.com"}, "u3"},
		{"created after", Filter{Limit: 10, CreatedAfter: &created[3].CreatedAt}, "u6 u5 u4"},
		{"limit", Filter{Limit: 2}, "u6 u5"},
		{"nothing", Filter{Limit: 10, Email: "x@example.com"}, ""},
	} {
		page, err := r.List(ctx, tt.f)
		wantError(t, tt.name, err, nil)
		if got := emails(page); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	var all []User
	f := Filter{Limit: 2}
	for {
		page, err := r.List(ctx, f)
		wantError(t, "page", err, nil)
		all = append(all, page...)
		if len(page) < f.Limit {
			break
		}
		last := page[len(page)-1]
		f.After = &Position{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	if got := emails(all); got != "u6 u5 u4 u3 u2 u0" {
		t.Errorf("page by page: %q", got)
	}
}

func testQuery(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	for email, name := range map[string]string{
		"anna@example.com": "Zoe", "a_b@example.com": "Ben", "a%c@example.com": "Cleo", "zed@example.com": `AN\A`, "axb@example.com": "Äda",
	} {
		if _, err := r.Create(ctx, User{ID: ids.New(), Email: email, Name: name, Status: Active, Metadata: json.RawMessage(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
	for q, want := range map[string]string{
		"AN": "anna zed", "a_": "a_b", "a%": "a%c", `an\`: "zed", "nna": "", "äd": "axb", "ÄD": "axb", "' OR 1=1 --": "",
	} {
		page, err := r.List(ctx, Filter{Query: q, Limit: 10})
		wantError(t, q, err, nil)
		got := strings.Fields(emails(page))
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("q=%s: %q, want %q", q, got, want)
		}
	}
}

func testCredential(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "ada@example.com")
	_, err := r.Credential(ctx, u.ID)
	wantError(t, "a user without a password", err, ErrNotFound)
	wantError(t, "set", r.SetCredential(ctx, u.ID, "one"), nil)
	wantError(t, "set again", r.SetCredential(ctx, u.ID, "two"), nil)
	wantError(t, "set for nobody", r.SetCredential(ctx, ids.New(), "one"), ErrNotFound)
	for _, swap := range []struct {
		old, hash string
		swapped   bool
	}{{"one", "three", false}, {"two", "three", true}, {"two", "four", false}} {
		ok, err := r.SwapCredential(ctx, u.ID, swap.old, swap.hash)
		if err != nil || ok != swap.swapped {
			t.Errorf("swap %+v: %t, %v", swap, ok, err)
		}
	}
	hash, err := r.Credential(ctx, u.ID)
	wantError(t, "Credential", err, nil)
	if hash != "three" {
		t.Errorf("hash %q", hash)
	}
}

func testSignedIn(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "ada@example.com")
	in, err := r.SignedIn(ctx, u.ID)
	wantError(t, "SignedIn", err, nil)
	if in.LastSignInAt == nil || in.Version != 2 || in.Email != u.Email || in.Name != u.Name {
		t.Errorf("signed in: %+v", in)
	}
	stored, err := r.ByID(ctx, u.ID)
	wantError(t, "ByID", err, nil)
	wantSame(t, "stored", stored, in)
	for _, status := range []Status{Suspended, Deleted} {
		_, err = r.Update(ctx, u.ID, func(u *User) error { u.Status = status; return nil })
		wantError(t, "Update", err, nil)
		_, err = r.SignedIn(ctx, u.ID)
		wantError(t, string(status), err, ErrNotFound)
	}
	_, err = r.SignedIn(ctx, ids.New())
	wantError(t, "nobody", err, ErrNotFound)
}

func testToken(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	u := mustCreate(t, r, "ada@example.com")
	create := func(hash string, purpose Purpose, lives time.Duration) {
		t.Helper()
		expires, err := r.CreateToken(ctx, Token{Hash: []byte(hash), UserID: u.ID, Purpose: purpose, Email: u.Email, ExpiresIn: lives})
		wantError(t, "CreateToken", err, nil)
		if d := time.Until(expires) - lives; d < -time.Minute || d > time.Minute {
			t.Errorf("expires %v from now, want %v", time.Until(expires), lives)
		}
	}
	take := func(what, hash string, purpose Purpose, want error) Token {
		t.Helper()
		tok, err := r.TakeToken(ctx, purpose, []byte(hash))
		wantError(t, what, err, want)
		return tok
	}
	create("a", EmailVerification, time.Hour)
	create("b", PasswordReset, time.Hour)
	create("old", PasswordReset, -time.Second)
	take("another purpose", "a", PasswordReset, ErrTokenInvalid)
	if tok := take("a", "a", EmailVerification, nil); tok.UserID != u.ID || tok.Email != u.Email || tok.ExpiresAt.IsZero() {
		t.Errorf("took %+v", tok)
	}
	take("a second time", "a", EmailVerification, ErrTokenInvalid)
	take("expired", "old", PasswordReset, ErrTokenInvalid)
	if n, err := r.DeleteExpiredTokens(ctx, 10); err != nil || n != 1 {
		t.Errorf("removed %d expired tokens, %v", n, err)
	}
	wantError(t, "DeleteTokens", r.DeleteTokens(ctx, u.ID), nil)
	take("removed", "b", PasswordReset, ErrTokenInvalid)
	_, err := r.CreateToken(ctx, Token{Hash: []byte("c"), UserID: ids.New(), Purpose: PasswordReset, ExpiresIn: time.Hour})
	wantError(t, "a token for nobody", err, ErrNotFound)
}

func testImport(t *testing.T, _ *db.DB, r Repository) {
	ctx := t.Context()
	existing := mustCreate(t, r, "ada@example.com")
	batch := func() []ImportUser {
		var b []ImportUser
		for _, email := range []string{"new@example.com", "ADA@example.com", "NEW@example.com", `q"\,{}@example.com`} {
			b = append(b, ImportUser{Hash: "hash of " + email, User: User{
				ID: ids.New(), Email: email, EmailVerified: true, Name: "N", Status: Active, Metadata: json.RawMessage(`{"a": 1}`),
			}})
		}
		b[3].Hash = ""
		return b
	}
	first := batch()
	results, err := r.Import(ctx, first)
	wantError(t, "Import", err, nil)
	id := first[0].User.ID
	if want := []Imported{{id, true}, {existing.ID, false}, {id, false}, {first[3].User.ID, true}}; !slices.Equal(results, want) {
		t.Fatalf("imported %v, want %v", results, want)
	}
	u, err := r.ByID(ctx, id)
	wantError(t, "ByID", err, nil)
	if u.Email != "new@example.com" || !u.EmailVerified || u.Name != "N" || string(u.Metadata) != `{"a": 1}` || u.Version != 1 {
		t.Errorf("imported %+v", u)
	}
	hash, err := r.Credential(ctx, id)
	wantError(t, "Credential", err, nil)
	if hash != "hash of new@example.com" {
		t.Errorf("imported hash %q", hash)
	}
	for _, without := range []uuid.UUID{existing.ID, first[3].User.ID} {
		_, err = r.Credential(ctx, without)
		wantError(t, "a user that came without a password, or was there before", err, ErrNotFound)
	}
	again, err := r.Import(ctx, batch())
	wantError(t, "Import again", err, nil)
	for i, res := range again {
		if res.Created || res.ID != results[i].ID {
			t.Errorf("line %d again: %v, first %v", i, res, results[i])
		}
	}
}

func testTransaction(t *testing.T, d *db.DB, r Repository) {
	failure := errors.New("failure")
	var u User
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		var err error
		if u, err = r.Create(ctx, User{ID: ids.New(), Email: "ada@example.com", Status: Active, Metadata: json.RawMessage(`{}`)}); err != nil {
			return err
		}
		if _, err = r.ByID(ctx, u.ID); err != nil {
			return fmt.Errorf("a transaction does not see its own writes: %w", err)
		}
		return failure
	})
	wantError(t, "InTx", err, failure)
	_, err = r.ByID(t.Context(), u.ID)
	wantError(t, "a user of a rolled back transaction", err, ErrNotFound)

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.ByID(canceled, ids.New()) // not one that is in memory
	wantError(t, "a caller that went away", err, errs.ErrCanceled)
}
