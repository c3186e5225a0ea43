package sessions

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
)

// lastSeen returns how long ago the database thinks that a session was used, in seconds.
func lastSeen(t *testing.T, f fixture, id uuid.UUID) float64 {
	t.Helper()
	var seconds float64
	err := f.db.SQL().QueryRowContext(t.Context(),
		`SELECT extract(epoch FROM clock_timestamp() - last_seen_at)::float8 FROM sessions WHERE id = $1`, id).Scan(&seconds)
	if err != nil {
		t.Fatal(err)
	}
	return seconds
}

// TestSeenIsFlushedAtTheEnd: the use of a session is not written by the request, but before the process ends.
func TestSeenIsFlushedAtTheEnd(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.FlushInterval = time.Hour })
	f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	age(t, f.db, in.Session.ID, day)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	for range 3 {
		_, err := f.Verify(t.Context(), in.Token)
		wantError(t, "verify", err, nil)
	}
	if lastSeen(t, f, in.Session.ID) < time.Hour.Seconds() {
		t.Error("the use was written at once")
	}
	stop()
	wantError(t, "run", <-done, nil)
	if lastSeen(t, f, in.Session.ID) > time.Hour.Seconds() {
		t.Error("the use was not written at the end")
	}
}

// TestSeenAtOnceNearTheEnd: a session that is used just before it would end lives on.
func TestSeenAtOnceNearTheEnd(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.FlushInterval = time.Hour })
	f.users.add(t, "ada@example.com")
	in := f.mustSignIn(t, "ada@example.com")
	age(t, f.db, in.Session.ID, 7*day-time.Minute)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	_, err := f.Verify(t.Context(), in.Token)
	wantError(t, "verify", err, nil)
	for lastSeen(t, f, in.Session.ID) > time.Hour.Seconds() { // until the test's deadline
		time.Sleep(time.Millisecond)
	}
	stop()
	wantError(t, "run", <-done, nil)
}

// flaky is a repository whose database is away for a while.
type flaky struct {
	Repository
	fail    error
	batches [][]Use
}

func (r *flaky) Seen(_ context.Context, batch []Use, _ SeenPolicy) (int64, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	r.batches = append(r.batches, append([]Use(nil), batch...))
	return int64(len(batch)), nil
}

func TestSeenLog(t *testing.T) {
	repo := &flaky{fail: errs.ErrUnavailable}
	l := newSeenLog(repo, SeenPolicy{Idle: day, Interval: time.Hour})
	want := map[uuid.UUID]bool{}
	for range seenBatch + 5 {
		id := ids.New()
		want[id] = true
		l.note(id, time.Now(), false)
		l.note(id, time.Now(), false)
	}
	wantError(t, "flush without a database", l.flush(t.Context()), errs.ErrUnavailable)
	repo.fail = nil
	wantError(t, "flush", l.flush(t.Context()), nil)
	wantError(t, "flush of nothing", l.flush(t.Context()), nil)
	if len(repo.batches) != 2 || len(repo.batches[0]) != seenBatch || len(repo.batches[1]) != 5 {
		t.Fatalf("%d batches", len(repo.batches))
	}
	for _, batch := range repo.batches {
		for _, u := range batch {
			if !want[u.ID] {
				t.Fatalf("%v was written twice, or never noted", u.ID)
			}
			delete(want, u.ID)
		}
	}
}

func TestSeenLogForgets(t *testing.T) {
	l := newSeenLog(&flaky{}, SeenPolicy{Idle: day, Interval: time.Nanosecond})
	l.note(ids.New(), time.Now(), false)
	time.Sleep(time.Millisecond)
	wantError(t, "flush", l.flush(t.Context()), nil)
	if len(l.noted) != 0 || len(l.unsent) != 0 {
		t.Errorf("%d and %d sessions are remembered", len(l.noted), len(l.unsent))
	}
}

func TestCleanUp(t *testing.T) {
	f := newFixture(t)
	live := mustCreate(t, f.repo, ids.New())
	for range 5 {
		age(t, f.db, mustCreate(t, f.repo, ids.New()).ID, 8*day)
	}
	n, err := f.deleteExpired(t.Context())
	if n != 5 || err != nil {
		t.Errorf("removed %d, %v, want 5", n, err)
	}
	_, err = f.repo.ByToken(t.Context(), live.TokenHash)
	wantError(t, "a live session", err, nil)
}
