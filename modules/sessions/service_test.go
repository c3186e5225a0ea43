package sessions

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
)

const password = "correct horse battery staple"

// accounts stands for the users module: accounts are rows, so that their locks are real ones.
type accounts struct {
	db    *db.DB
	delay func() // between any two steps
	fail  error  // what SignIn answers; nil: what is true

	guesses atomic.Int64 // passwords that were verified
}

var (
	errCredentials = errs.New(errs.Unauthenticated, "invalid_credentials", "Wrong.")
	errSuspended   = errs.New(errs.Forbidden, "user_suspended", "Suspended.")
)

func newAccounts(t *testing.T, d *db.DB) *accounts {
	t.Helper()
	mustExec(t, d, `CREATE TABLE accounts (id uuid PRIMARY KEY, email text UNIQUE, status text DEFAULT 'active')`)
	return &accounts{db: d, delay: func() {}}
}

func (a *accounts) add(t *testing.T, email string) uuid.UUID {
	t.Helper()
	id := ids.New()
	mustExec(t, a.db, `INSERT INTO accounts (id, email) VALUES ($1, $2)`, id, email)
	return id
}

func (a *accounts) SignIn(ctx context.Context, email, given string, open func(context.Context, uuid.UUID) error) (web.JSONAppender, error) {
	a.guesses.Add(1)
	if a.fail != nil {
		return nil, a.fail
	}
	var id uuid.UUID
	err := a.db.Querier(ctx).QueryRowContext(ctx, `SELECT id FROM accounts WHERE email = $1`, email).Scan(&id)
	a.delay()
	if db.IsNoRows(err) || err == nil && given != password {
		return nil, errCredentials
	}
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	a.delay()
	err = a.db.InTx(ctx, func(ctx context.Context) error {
		var status string
		if err := a.db.Querier(ctx).QueryRowContext(ctx, `SELECT status FROM accounts WHERE id = $1 FOR UPDATE`, id).Scan(&status); err != nil {
			return err
		}
		if status != "active" {
			return errSuspended
		}
		a.delay()
		defer a.delay()
		return open(ctx, id)
	})
	return view(id), err
}

func (a *accounts) Active(ctx context.Context, id uuid.UUID) (web.JSONAppender, bool, error) {
	var status string
	err := a.db.Querier(ctx).QueryRowContext(ctx, `SELECT status FROM accounts WHERE id = $1`, id).Scan(&status)
	if db.IsNoRows(err) {
		return nil, false, nil
	}
	return view(id), status == "active", db.Translate(err, nil)
}

func view(id uuid.UUID) web.JSONAppender {
	return web.RawJSON(fmt.Sprintf(`{"id":%q}`, ids.Format("user", id)))
}

func (a *accounts) setStatus(ctx context.Context, s *Service, id uuid.UUID, status string) error {
	return a.db.InTx(ctx, func(ctx context.Context) error {
		if _, err := a.db.Querier(ctx).ExecContext(ctx, `UPDATE accounts SET status = $2 WHERE id = $1`, id, status); err != nil {
			return err
		}
		a.delay()
		if status == "active" {
			return nil
		}
		return s.EndAll(ctx, id, uuid.Nil)
	})
}

// trail stands for the audit log.
type trail struct {
	mu     sync.Mutex
	events []string // "action target"
	fail   error
}

func (tr *trail) Record(_ context.Context, action, _ string, targetIDs []string, metadata map[string]any) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if strings.Contains(fmt.Sprint(metadata), "@") {
		panic("an e-mail address in the audit trail")
	}
	for _, id := range targetIDs {
		tr.events = append(tr.events, strings.TrimSpace(action+" "+id))
	}
	return tr.fail
}

func (tr *trail) take() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	events := tr.events
	tr.events = nil
	return events
}

type fixture struct {
	*Module
	*Service
	db    *db.DB
	users *accounts
	trail *trail
}

func testConfig() Config {
	return Config{
		IdleTimeout: 7 * day, Lifetime: 30 * day, SeenInterval: time.Minute, FlushInterval: 5 * time.Second,
		CleanupInterval: time.Minute, CleanupBatch: 2, MaxPerUser: 5, AccountLimit: web.Limit{Requests: 3, Per: time.Hour},
	}
}

func newFixture(t *testing.T, options ...func(*Config)) fixture {
	t.Helper()
	d := openDB(t)
	f := fixture{db: d, users: newAccounts(t, d), trail: &trail{}}
	cfg := testConfig()
	for _, option := range options {
		option(&cfg)
	}
	f.Module = New(Deps{
		DB: d, Repository: newSwitch(t, d, rollout.Cached), Users: f.users, Auditor: f.trail,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Config: cfg,
	})
	f.Service = f.Module.Service
	return f
}

func (f fixture) mustSignIn(t *testing.T, email string) SignedIn {
	t.Helper()
	in, err := f.SignIn(t.Context(), email, password)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func (f fixture) wantTrail(t *testing.T, want ...string) {
	t.Helper()
	if got := f.trail.take(); !slices.Equal(got, want) {
		t.Errorf("audit trail %q, want %q", got, want)
	}
}

func target(s Session) string { return ids.Format(IDPrefix, s.ID) }

func TestSignIn(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	if in.Session.UserID != ada || !reflect.DeepEqual(in.User, view(ada)) || len(in.Token) != tokenLength {
		t.Errorf("signed in %+v", in)
	}
	f.wantTrail(t, "session.created "+target(in.Session))
	v, err := f.Verify(t.Context(), in.Token)
	wantError(t, "verify", err, nil)
	if v != nil && (!same(v.Session, in.Session) || !reflect.DeepEqual(v.User, view(ada))) {
		t.Errorf("verified %+v, want %+v", v, in.Session)
	}
	var stored int
	err = f.db.SQL().QueryRowContext(t.Context(), `SELECT count(*) FROM sessions s WHERE s::text LIKE '%' || $1 || '%'`, in.Token[3:]).Scan(&stored)
	if err != nil || stored != 0 {
		t.Errorf("the token is stored: %d, %v", stored, err)
	}
	for name, token := range map[string]string{
		"empty": "", "prefix": "st_", "other": strings.Repeat("x", tokenLength), "longer": in.Token + "A",
		"unknown": func() string { token, _ := newToken(); return token }(),
	} {
		_, err := f.Verify(t.Context(), token)
		wantError(t, name, err, ErrTokenInvalid)
	}
}

func TestSignInRefused(t *testing.T) {
	f := newFixture(t)
	f.users.add(t, "ada@example.com")
	eve := f.users.add(t, "eve@example.com")
	wantError(t, "suspend", f.users.setStatus(t.Context(), f.Service, eve, "suspended"), nil)
	for _, c := range []struct {
		name, email, password string
		want                  error
		trail                 []string
	}{
		{"wrong password", "ada@example.com", "wrong", errCredentials, []string{"session.sign_in_failed"}},
		{"wrong e-mail", "bob@example.com", password, errCredentials, []string{"session.sign_in_failed"}},
		{"suspended", "eve@example.com", password, errSuspended, nil},
	} {
		_, err := f.SignIn(t.Context(), c.email, c.password)
		wantError(t, c.name, err, c.want)
		f.wantTrail(t, c.trail...)
	}
}

// TestNothingGoesUnrecorded: what cannot be recorded does not happen.
func TestNothingGoesUnrecorded(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	f.trail.fail = errs.ErrUnavailable
	for _, given := range []string{password, "wrong"} {
		_, err := f.SignIn(t.Context(), "ada@example.com", given)
		wantError(t, "sign in", err, errs.ErrUnavailable)
	}
	_, _, err := f.Rotate(t.Context(), &Verified{Session: in.Session})
	wantError(t, "rotate", err, errs.ErrUnavailable)
	wantError(t, "revoke", f.Revoke(t.Context(), in.Session.ID, ada), errs.ErrUnavailable)
	if list, err := f.List(t.Context(), ada); err != nil || !slices.EqualFunc(list, []Session{in.Session}, same) {
		t.Errorf("left are %+v, %v, want the session as it was", list, err)
	}
}

// TestGuessesAtOnce: guesses that are made at the same time are limited like those that come one by one.
func TestGuessesAtOnce(t *testing.T) {
	f := newFixture(t)
	f.users.add(t, "ada@example.com")
	f.users.delay = func() { time.Sleep(20 * time.Millisecond) }
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := f.SignIn(t.Context(), "ada@example.com", "wrong"); !errors.Is(err, errCredentials) && !errors.Is(err, web.ErrRateLimited) {
				t.Errorf("a guess: %v", err)
			}
		})
	}
	wg.Wait()
	if n := f.users.guesses.Load(); n != 3 {
		t.Errorf("%d passwords were verified, want 3", n)
	}
}

func TestSignInLimit(t *testing.T) {
	f := newFixture(t)
	f.users.add(t, "ada@example.com")
	for range 10 { // only failures count
		f.mustSignIn(t, "ada@example.com")
	}
	guess := func(email, password string) error {
		_, err := f.SignIn(t.Context(), email, password)
		return err
	}
	for _, email := range []string{"ada@example.com", " ADA@example.com", "bob@example.com"} {
		wantError(t, "guess", guess(email, "wrong"), errCredentials)
	}
	wantError(t, "third guess", guess("Ada@Example.com", "wrong"), errCredentials)
	err := guess("ada@example.com", password)
	wantError(t, "the right password after too many guesses", err, web.ErrRateLimited)
	if wait := errs.From(err).RetryAfter; wait <= 0 || wait > time.Hour {
		t.Errorf("asked to wait for %v", wait)
	}
	wantError(t, "another account", guess("bob@example.com", "wrong"), errCredentials)
	mustExec(t, f.db, `UPDATE sign_in_failures SET expires_at = now()`)
	wantError(t, "after the window", guess("ada@example.com", password), nil)
}

// TestNobodyLocksTheOwnerOut guesses at an account from elsewhere while its owner comes from a known address.
func TestNobodyLocksTheOwnerOut(t *testing.T) {
	f := newFixture(t)
	th, ada := f.throttle, ids.New()
	owner, elsewhere := th.attempt("ada@example.com", "2001:db8::1"), th.attempt("ada@example.com", "192.0.2.7")
	wantError(t, "recognise", f.repo.Recognise(t.Context(), owner.Client, ada), nil)
	for range 10 {
		_, _ = th.admit(t.Context(), elsewhere)
	}
	_, err := th.admit(t.Context(), elsewhere)
	wantError(t, "from elsewhere", err, web.ErrRateLimited)
	sameNetwork := th.attempt("ADA@example.com", "2001:db8::ffff:1")
	for range owner.Max {
		_, err = th.admit(t.Context(), sameNetwork)
		wantError(t, "the owner", err, nil)
	}
	_, err = th.admit(t.Context(), owner)
	wantError(t, "the owner's client guessing", err, web.ErrRateLimited)
}

func TestMaxPerUser(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	var made []Session
	for range 7 {
		made = slices.Insert(made, 0, f.mustSignIn(t, "ada@example.com").Session)
	}
	list, err := f.List(t.Context(), ada)
	wantError(t, "list", err, nil)
	if !slices.EqualFunc(list, made[:5], same) {
		t.Errorf("%d sessions left, want the 5 newest", len(list))
	}
	if got := f.trail.take(); !slices.Contains(got, "session.revoked "+target(made[5])) {
		t.Errorf("audit trail %q without the session that made room", got)
	}
}

func TestRotate(t *testing.T) {
	f := newFixture(t)
	f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	v, err := f.Verify(t.Context(), in.Token)
	wantError(t, "verify", err, nil)
	f.trail.take()
	session, token, err := f.Rotate(t.Context(), v)
	wantError(t, "rotate", err, nil)
	if session.ID != in.Session.ID || !session.ExpiresAt.Equal(in.Session.ExpiresAt) {
		t.Errorf("rotated into %+v, want the session %+v", session, in.Session)
	}
	f.wantTrail(t, "session.rotated "+target(session))
	_, err = f.Verify(t.Context(), in.Token)
	wantError(t, "old token", err, ErrTokenInvalid)
	_, err = f.Verify(t.Context(), token)
	wantError(t, "new token", err, nil)
	_, _, err = f.Rotate(t.Context(), v)
	wantError(t, "rotate by the old token", err, ErrTokenInvalid)
}

func TestRevoke(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	in, kept := f.mustSignIn(t, "ada@example.com"), f.mustSignIn(t, "ada@example.com")
	f.trail.take()
	wantError(t, "revoke somebody else's", f.Revoke(t.Context(), in.Session.ID, ids.New()), ErrNotFound)
	for _, call := range []string{"revoke", "revoke again"} {
		wantError(t, call, f.Revoke(t.Context(), in.Session.ID, ada), nil)
	}
	f.wantTrail(t, "session.revoked "+target(in.Session))
	_, err := f.Verify(t.Context(), in.Token)
	wantError(t, "revoked", err, ErrTokenInvalid)
	_, err = f.Verify(t.Context(), kept.Token)
	wantError(t, "another session", err, nil)
}

func TestRevokeAll(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	f.users.add(t, "bob@example.com")
	one, two, bob := f.mustSignIn(t, "ada@example.com"), f.mustSignIn(t, "ada@example.com"), f.mustSignIn(t, "bob@example.com")
	f.trail.take()
	n, err := f.RevokeAll(t.Context(), ada, one.Session.ID)
	if n != 1 || err != nil {
		t.Errorf("revoked %d, %v, want 1", n, err)
	}
	f.wantTrail(t, "session.revoked "+target(two.Session))
	_, err = f.Verify(t.Context(), one.Token)
	wantError(t, "excepted", err, nil)
	_, err = f.Verify(t.Context(), two.Token)
	wantError(t, "revoked", err, ErrTokenInvalid)
	wantError(t, "erase", f.Erase(t.Context(), ada), nil)
	_, err = f.Verify(t.Context(), one.Token)
	wantError(t, "erased", err, ErrTokenInvalid)
	_, err = f.Verify(t.Context(), bob.Token)
	wantError(t, "somebody else", err, nil)
	var left int
	err = f.db.SQL().QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM sessions WHERE user_id = $1) +
		(SELECT count(*) FROM sign_in_clients WHERE user_id = $1)`, ada).Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d rows are left of an erased user, %v", left, err)
	}
}

// TestVerifyNeedsActiveUser does not rely on EndAll: a user may be changed behind the program's back.
func TestVerifyNeedsActiveUser(t *testing.T) {
	f := newFixture(t)
	ada := f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	for _, change := range []string{`UPDATE accounts SET status = 'suspended' WHERE id = $1`, `DELETE FROM accounts WHERE id = $1`} {
		mustExec(t, f.db, change, ada)
		_, err := f.Verify(t.Context(), in.Token)
		wantError(t, change, err, ErrTokenInvalid)
	}
}

func TestDatabaseDown(t *testing.T) {
	f := newFixture(t)
	f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	if err := f.db.SQL().Close(); err != nil {
		t.Fatal(err)
	}
	_, err := f.Verify(t.Context(), in.Token)
	if errs.KindOf(err) == errs.Unauthenticated {
		t.Errorf("a valid token is refused with %v while the database is away", err)
	}
}

// TestSuspendRacesSignIn suspends accounts while they are signed in to: whatever comes first, no session survives.
func TestSuspendRacesSignIn(t *testing.T) {
	f := newFixture(t)
	random := newRandom(t)
	f.users.delay = random.pause
	for i := range 25 {
		email := fmt.Sprintf("%d@example.com", i)
		id := f.users.add(t, email)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				random.pause()
				if _, err := f.SignIn(t.Context(), email, password); err != nil && !errors.Is(err, errSuspended) {
					t.Errorf("sign in: %v", err)
				}
			})
		}
		wg.Go(func() {
			random.pause()
			wantError(t, "suspend", f.users.setStatus(t.Context(), f.Service, id, "suspended"), nil)
		})
		wg.Wait()
		if list, err := f.List(t.Context(), id); err != nil || len(list) != 0 {
			t.Fatalf("%d sessions of a suspended user, %v", len(list), err)
		}
	}
}

// TestRotateRacesRevoke rotates a session, twice with the same token, while it is revoked: at most one rotation counts,
// and no token works in the end.
func TestRotateRacesRevoke(t *testing.T) {
	f := newFixture(t)
	random := newRandom(t)
	ada := f.users.add(t, "ada@example.com")
	for range 25 {
		in := f.mustSignIn(t, "ada@example.com")
		v := &Verified{Session: in.Session}
		var mu sync.Mutex
		var tokens []string
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				random.pause()
				_, token, err := f.Rotate(t.Context(), v)
				if err != nil {
					wantError(t, "rotate", err, ErrTokenInvalid)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens = append(tokens, token)
			})
		}
		wg.Go(func() {
			random.pause()
			wantError(t, "revoke", f.Revoke(t.Context(), in.Session.ID, ada), nil)
		})
		wg.Wait()
		if len(tokens) > 1 {
			t.Fatal("one token was rotated twice")
		}
		for _, token := range append(tokens, in.Token) {
			_, err := f.Verify(t.Context(), token)
			wantError(t, "after revocation", err, ErrTokenInvalid)
		}
	}
}

// random gives short random pauses to goroutines.
type random struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newRandom(t *testing.T) *random {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &random{rng: rand.New(rand.NewPCG(seed, 0))}
}

func (r *random) pause() {
	r.mu.Lock()
	d := time.Duration(r.rng.IntN(4000)) * time.Microsecond
	r.mu.Unlock()
	time.Sleep(d)
}
