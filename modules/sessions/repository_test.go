package sessions

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
	"github.com/strata-accounts/strata/platform/web"
)

// TestRepository runs the one conformance suite on every rung, and on the switch at every stage: what passes here is
// what a caller sees, whoever answers.
func TestRepository(t *testing.T) {
	rungs := map[string]func(*testing.T, *db.DB) Repository{
		"direct":   func(_ *testing.T, d *db.DB) Repository { return NewDirectRepository(d) },
		"postgres": func(_ *testing.T, d *db.DB) Repository { return NewPostgresRepository(d) },
	}
	for _, stage := range []rollout.Stage{rollout.Direct, rollout.Shadow, rollout.Repository} {
		rungs["switch/"+string(stage)] = func(t *testing.T, d *db.DB) Repository { return newSwitch(t, d, stage) }
	}
	for name, configure := range cachetest.Deployments(t) {
		rungs["switch/cached/"+name] = func(t *testing.T, d *db.DB) Repository { return newSwitch(t, d, rollout.Cached, configure) }
	}
	for name, open := range rungs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t)
			testRepository(t, d, open(t, d))
		})
	}
}

func openDB(t testing.TB) *db.DB {
	t.Helper()
	return cachetest.OpenDB(t, web.Migrations(), Migrations())
}

// newSwitch returns the module's repository at this stage, with a cache of its own, in process unless options say more.
func newSwitch(t testing.TB, d *db.DB, stage rollout.Stage, options ...func(*cache.Config)) *SwitchRepository {
	t.Helper()
	postgres := NewPostgresRepository(d)
	entries, _ := newCache(t, d, options...)
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: stage, Cache: entries,
		Direct: NewDirectRepository(d), Repository: postgres, Cached: NewCacheRepository(postgres, entries, userKey),
	})
}

func testRepository(t *testing.T, d *db.DB, r Repository) {
	for name, test := range map[string]func(*testing.T, *db.DB, Repository){
		"Create": testCreate, "Expiry": testExpiry, "List": testList, "Lock": testLock, "LockAll": testLockAll,
		"Rotate": testRotate, "Delete": testDelete, "Seen": testSeen, "SeenConcurrently": testSeenConcurrently,
		"DeleteExpired": testDeleteExpired, "Attempts": testAttempts, "AttemptsConcurrently": testAttemptsConcurrently,
		"KnownClient": testKnownClient, "Transaction": testTransaction,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := d.SQL().ExecContext(t.Context(), `TRUNCATE sessions, sign_in_clients, sign_in_failures`); err != nil {
				t.Fatal(err)
			}
			test(t, d, r)
		})
	}
}

const day = 24 * time.Hour

func hashOf(s string) Hash { return sha256.Sum256([]byte(s)) }

func newSession(userID uuid.UUID) NewSession {
	_, hash := newToken()
	return NewSession{
		ID: ids.New(), UserID: userID, TokenHash: hash, IP: "192.0.2.1", UserAgent: "curl/8", Idle: 7 * day, Lifetime: 30 * day,
	}
}

func mustCreate(t testing.TB, r Repository, userID uuid.UUID) Session {
	t.Helper()
	s, err := r.Create(t.Context(), newSession(userID))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// age makes a session look as if all that happened to it had happened so long before.
func age(t *testing.T, d *db.DB, id uuid.UUID, by time.Duration) {
	t.Helper()
	mustExec(t, d, `UPDATE sessions SET created_at = created_at - $2::interval, last_seen_at = last_seen_at - $2::interval,
		expires_at = expires_at - $2::interval, idle_expires_at = idle_expires_at - $2::interval WHERE id = $1`,
		id, fmt.Sprintf("%d microseconds", by.Microseconds()))
}

func mustExec(t testing.TB, d *db.DB, query string, args ...any) {
	t.Helper()
	if _, err := d.SQL().ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// same compares times as points in time.
func same(a, b Session) bool {
	times := func(s Session) []time.Time {
		return []time.Time{s.CreatedAt, s.LastSeenAt, s.ExpiresAt, s.IdleExpiresAt}
	}
	equal := slices.EqualFunc(times(a), times(b), time.Time.Equal)
	var zero time.Time
	a.CreatedAt, a.LastSeenAt, a.ExpiresAt, a.IdleExpiresAt = zero, zero, zero, zero
	b.CreatedAt, b.LastSeenAt, b.ExpiresAt, b.IdleExpiresAt = zero, zero, zero, zero
	return equal && a == b
}

func testCreate(t *testing.T, _ *db.DB, r Repository) {
	n := newSession(ids.New())
	s, err := r.Create(t.Context(), n)
	wantError(t, "create", err, nil)
	want := Session{
		ID: n.ID, UserID: n.UserID, TokenHash: n.TokenHash, CreatedAt: s.CreatedAt, LastSeenAt: s.CreatedAt,
		ExpiresAt: s.CreatedAt.Add(30 * day), IdleExpiresAt: s.CreatedAt.Add(7 * day),
		IP: "192.0.2.1", UserAgent: "curl/8", Version: 1,
	}
	if !same(s, want) {
		t.Errorf("created %+v, want %+v", s, want)
	}
	got, err := r.ByToken(t.Context(), n.TokenHash)
	wantError(t, "by token", err, nil)
	if !same(got, s) {
		t.Errorf("by token %+v, want %+v", got, s)
	}
	_, err = r.ByToken(t.Context(), hashOf("another"))
	wantError(t, "by another token", err, ErrNotFound)

	short := newSession(n.UserID)
	short.Lifetime = time.Hour
	s, err = r.Create(t.Context(), short)
	wantError(t, "create a short one", err, nil)
	if !s.IdleExpiresAt.Equal(s.ExpiresAt) {
		t.Errorf("idle expiry %v after absolute expiry %v", s.IdleExpiresAt, s.ExpiresAt)
	}
}

func testExpiry(t *testing.T, d *db.DB, r Repository) {
	for name, end := range map[string]string{
		"idle":     "idle_expires_at = now() + $2::interval",
		"absolute": "expires_at = now() + $2::interval, idle_expires_at = now() + $2::interval",
	} {
		s := mustCreate(t, r, ids.New())
		mustExec(t, d, `UPDATE sessions SET `+end+` WHERE id = $1`, s.ID, "1 minute")
		_, err := r.ByToken(t.Context(), s.TokenHash)
		wantError(t, name+": before", err, nil)
		mustExec(t, d, `UPDATE sessions SET `+end+` WHERE id = $1`, s.ID, "0 seconds")
		eventually(t, name+": after", func() bool { // the cache hears of writes behind its back a little later
			_, err := r.ByToken(t.Context(), s.TokenHash)
			return errors.Is(err, ErrNotFound)
		})
		list, err := r.List(t.Context(), s.UserID)
		wantError(t, name+": list", err, nil)
		if len(list) != 0 {
			t.Errorf("%s: an expired session is listed", name)
		}
	}
}

func testList(t *testing.T, _ *db.DB, r Repository) {
	user := ids.New()
	var want []Session
	for range 3 {
		want = slices.Insert(want, 0, mustCreate(t, r, user))
	}
	mustCreate(t, r, ids.New())
	got, err := r.List(t.Context(), user)
	wantError(t, "list", err, nil)
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("listed %+v, want %+v", got, want)
	}
	got, err = r.List(t.Context(), ids.New())
	wantError(t, "list of nobody", err, nil)
	if len(got) != 0 {
		t.Errorf("listed %d sessions of nobody", len(got))
	}
}

func testLock(t *testing.T, d *db.DB, r Repository) {
	s := mustCreate(t, r, ids.New())
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		got, err := r.Lock(ctx, s.ID)
		wantError(t, "lock", err, nil)
		if !same(got, s) {
			t.Errorf("locked %+v, want %+v", got, s)
		}
		_, err = d.SQL().ExecContext(t.Context(), `SELECT FROM sessions WHERE id = $1 FOR UPDATE NOWAIT`, s.ID)
		if err == nil {
			t.Error("another transaction could lock the row too")
		}
		return nil
	})
	wantError(t, "transaction", err, nil)
	_, err = r.Lock(t.Context(), ids.New())
	wantError(t, "lock an unknown one", err, ErrNotFound)
	age(t, d, s.ID, 40*day)
	_, err = r.Lock(t.Context(), s.ID)
	wantError(t, "lock an expired one", err, nil)
}

func testLockAll(t *testing.T, _ *db.DB, r Repository) {
	user := ids.New()
	var all []Session
	for range 4 {
		all = slices.Insert(all, 0, mustCreate(t, r, user))
	}
	mustCreate(t, r, ids.New())
	for skip := range 6 {
		got, err := r.LockAll(t.Context(), user, skip)
		wantError(t, "lock all", err, nil)
		if want := all[min(skip, len(all)):]; !slices.EqualFunc(got, want, same) {
			t.Errorf("skipping %d: locked %d sessions, want the %d oldest, newest first", skip, len(got), len(want))
		}
	}
}

func testRotate(t *testing.T, _ *db.DB, r Repository) {
	s := mustCreate(t, r, ids.New())
	_, hash := newToken()
	got, err := r.Rotate(t.Context(), s, hash)
	wantError(t, "rotate", err, nil)
	want := s
	want.TokenHash, want.Version = hash, 2
	if !same(got, want) {
		t.Errorf("rotated %+v, want %+v", got, want)
	}
	_, err = r.ByToken(t.Context(), s.TokenHash)
	wantError(t, "by the old token", err, ErrNotFound)
	got, err = r.ByToken(t.Context(), hash)
	wantError(t, "by the new token", err, nil)
	if !same(got, want) {
		t.Errorf("by the new token %+v, want %+v", got, want)
	}
	s.ID = ids.New()
	_, err = r.Rotate(t.Context(), s, hashOf("x"))
	wantError(t, "rotate an unknown one", err, ErrNotFound)
}

func testDelete(t *testing.T, _ *db.DB, r Repository) {
	user := ids.New()
	gone, gone2, kept := mustCreate(t, r, user), mustCreate(t, r, user), mustCreate(t, r, user)
	wantError(t, "delete none", r.Delete(t.Context(), nil), nil)
	wantError(t, "delete", r.Delete(t.Context(), []Session{gone, gone2}), nil)
	wantError(t, "delete again", r.Delete(t.Context(), []Session{gone, gone2}), nil)
	got, err := r.List(t.Context(), user)
	wantError(t, "list", err, nil)
	if !slices.EqualFunc(got, []Session{kept}, same) {
		t.Errorf("left are %+v, want %+v", got, kept)
	}
	_, err = r.ByToken(t.Context(), gone.TokenHash)
	wantError(t, "by a deleted session's token", err, ErrNotFound)
}

func testSeen(t *testing.T, d *db.DB, r Repository) {
	p := SeenPolicy{Idle: 7 * day, Interval: time.Minute}
	seen := func(want int64, batch ...Use) {
		t.Helper()
		n, err := r.Seen(t.Context(), batch, p)
		wantError(t, "seen", err, nil)
		if n != want {
			t.Errorf("%d sessions written, want %d", n, want)
		}
	}
	fresh, old, ending := mustCreate(t, r, ids.New()), mustCreate(t, r, ids.New()), mustCreate(t, r, ids.New())
	age(t, d, old.ID, time.Hour)
	mustExec(t, d, `UPDATE sessions SET last_seen_at = now() - interval '1 hour', expires_at = now() + interval '1 day',
		idle_expires_at = now() + interval '1 minute' WHERE id = $1`, ending.ID)
	seen(0)
	seen(2, Use{fresh.ID, 0}, Use{old.ID, 10 * time.Second}, Use{ending.ID, 0}, Use{ids.New(), 0})
	seen(0, Use{old.ID, 0}, Use{ending.ID, 0}) // within the interval
	seen(0, Use{old.ID, 2 * time.Hour})        // before what is known
	seen(0, Use{fresh.ID, 30 * time.Second})   // before it was made

	got, err := r.ByToken(t.Context(), old.TokenHash)
	wantError(t, "by token", err, nil)
	if ahead := got.LastSeenAt.Sub(old.LastSeenAt); ahead < -11*time.Second || ahead > time.Minute {
		t.Errorf("last seen %v after creation, want it about now", ahead)
	}
	if !got.IdleExpiresAt.Equal(got.LastSeenAt.Add(p.Idle)) || got.Version != 1 {
		t.Errorf("after a use: %+v", got)
	}
	if got, err = r.ByToken(t.Context(), ending.TokenHash); err != nil || !got.IdleExpiresAt.Equal(got.ExpiresAt) {
		t.Errorf("idle life beyond the absolute one: %+v, %v", got, err)
	}
}

// testSeenConcurrently has several instances note the same sessions in different orders: each is written once, and none
// of them waits in a circle.
func testSeenConcurrently(t *testing.T, d *db.DB, r Repository) {
	var batch []Use
	for range 40 {
		batch = append(batch, Use{ID: mustCreate(t, r, ids.New()).ID})
	}
	mustExec(t, d, `UPDATE sessions SET last_seen_at = last_seen_at - interval '1 hour'`)
	var written atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		mine := slices.Clone(batch)
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		wg.Go(func() {
			n, err := r.Seen(t.Context(), mine, SeenPolicy{Idle: day, Interval: time.Minute})
			wantError(t, "seen", err, nil)
			written.Add(n)
		})
	}
	wg.Wait()
	if total := written.Load(); total != int64(len(batch)) {
		t.Errorf("%d writes for %d sessions", total, len(batch))
	}
}

func testDeleteExpired(t *testing.T, d *db.DB, r Repository) {
	live := mustCreate(t, r, ids.New())
	for range 5 {
		age(t, d, mustCreate(t, r, ids.New()).ID, 8*day)
	}
	n, err := r.DeleteExpired(t.Context(), 2)
	wantError(t, "delete two", err, nil)
	if n != 2 {
		t.Errorf("%d deleted, want 2", n)
	}
	err = d.InTx(t.Context(), func(ctx context.Context) error { // another instance is at work on two
		if n, err = r.DeleteExpired(ctx, 2); n != 2 || err != nil {
			t.Errorf("%d deleted, %v, want 2", n, err)
		}
		n, err := r.DeleteExpired(t.Context(), 10)
		if n != 1 {
			t.Errorf("%d deleted beside it, want 1", n)
		}
		return err
	})
	wantError(t, "transaction", err, nil)
	_, err = r.ByToken(t.Context(), live.TokenHash)
	wantError(t, "a live session", err, nil)
}

func attempt(email, client string) Attempt {
	return Attempt{Account: hashOf(email), Client: hashOf(email + "|" + client), Max: 3, Window: time.Hour}
}

func testAttempts(t *testing.T, d *db.DB, r Repository) {
	count := func(a Attempt, want int) Tally {
		t.Helper()
		got, err := r.CountAttempt(t.Context(), a)
		wantError(t, "count", err, nil)
		if got.Failures != want || got.Key != a.Account || got.ResetAfter <= 0 || got.ResetAfter > a.Window {
			t.Errorf("tally %+v, want %d failures of the account", got, want)
		}
		return got
	}
	a := attempt("ada", "1")
	first := count(a, 1)
	count(attempt("bob", "1"), 1)
	count(attempt("ada", "2"), 2)
	count(a, 3)
	count(a, 4)
	last := count(a, 4) // too many: they are not counted any more
	if last.ResetAfter > first.ResetAfter {
		t.Error("an attempt prolonged the wait")
	}
	for range 5 {
		wantError(t, "forgive", r.ForgiveAttempt(t.Context(), a.Account), nil)
	}
	count(a, 1)
	mustExec(t, d, `UPDATE sign_in_failures SET failures = 4, expires_at = now() WHERE key = $1`, a.Account)
	count(a, 1)

	mustExec(t, d, `UPDATE sign_in_failures SET expires_at = now()`)
	wantDeletedStale(t, r, day)
	var left int
	if err := d.SQL().QueryRowContext(t.Context(), `SELECT count(*) FROM sign_in_failures`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d counts left, %v", left, err)
	}
}

func testAttemptsConcurrently(t *testing.T, _ *db.DB, r Repository) {
	a := attempt("ada", "1")
	a.Max = 100
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := r.CountAttempt(t.Context(), a)
			wantError(t, "count", err, nil)
		})
	}
	wg.Wait()
	if got, err := r.CountAttempt(t.Context(), a); err != nil || got.Failures != 21 {
		t.Errorf("%d failures, %v, want 21", got.Failures, err)
	}
}

func testKnownClient(t *testing.T, d *db.DB, r Repository) {
	a, user := attempt("ada", "1"), ids.New()
	keyOf := func() Hash {
		t.Helper()
		got, err := r.CountAttempt(t.Context(), a)
		wantError(t, "count", err, nil)
		return got.Key
	}
	if keyOf() != a.Account {
		t.Error("an unknown client has a count of its own")
	}
	wantError(t, "recognise", r.Recognise(t.Context(), a.Client, user), nil)
	wantError(t, "recognise again", r.Recognise(t.Context(), a.Client, user), nil)
	if keyOf() != a.Client {
		t.Error("a known client has no count of its own")
	}
	wantDeletedStale(t, r, day)
	if keyOf() != a.Client {
		t.Error("a client was forgotten too early")
	}
	mustExec(t, d, `UPDATE sign_in_clients SET seen_at = seen_at - interval '2 days'`)
	wantDeletedStale(t, r, day)
	if keyOf() != a.Account {
		t.Error("a client that was not seen any more is still known")
	}
	wantError(t, "recognise", r.Recognise(t.Context(), a.Client, user), nil)
	wantError(t, "forget somebody else", r.Forget(t.Context(), ids.New()), nil)
	if keyOf() != a.Client {
		t.Error("forgetting somebody else forgot the client")
	}
	wantError(t, "forget", r.Forget(t.Context(), user), nil)
	if keyOf() != a.Account {
		t.Error("a forgotten user's client is still known")
	}
}

// testTransaction shows that every write joins the context's transaction.
func testTransaction(t *testing.T, d *db.DB, r Repository) {
	rolledBack := errors.New("rolled back")
	user := ids.New()
	kept := mustCreate(t, r, user)
	var inside Session
	err := d.InTx(t.Context(), func(ctx context.Context) error {
		var err error
		inside, err = r.Create(ctx, newSession(user))
		wantError(t, "create", err, nil)
		rotated, err := r.Rotate(ctx, kept, hashOf("rotated"))
		wantError(t, "rotate", err, nil)
		wantError(t, "delete", r.Delete(ctx, []Session{rotated}), nil)
		wantError(t, "recognise", r.Recognise(ctx, hashOf("client"), user), nil)
		return rolledBack
	})
	wantError(t, "transaction", err, rolledBack)
	got, err := r.List(t.Context(), user)
	wantError(t, "list", err, nil)
	if !slices.EqualFunc(got, []Session{kept}, same) {
		t.Errorf("after a rollback %+v, want %+v", got, kept)
	}
	_, err = r.ByToken(t.Context(), inside.TokenHash)
	wantError(t, "a session that was rolled back", err, ErrNotFound)
}

// wantDeletedStale removes what is stale one by one.
func wantDeletedStale(t *testing.T, r Repository, unseen time.Duration) {
	t.Helper()
	for n := int64(1); n > 0; {
		var err error
		if n, err = r.DeleteStale(t.Context(), unseen, 1); err != nil || n > 2 {
			t.Fatalf("deleted %d of each kind at most, %v", n, err)
		}
	}
}
