package auditlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
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

// rungs are the implementations of Repository that need nothing but a database.
var rungs = map[string]func(*db.DB) Repository{
	"direct":   func(d *db.DB) Repository { return NewDirectRepository(d) },
	"postgres": func(d *db.DB) Repository { return NewPostgresRepository(d) },
}

// TestRepository runs the one conformance suite on every rung, on the switch at every stage, and on the cache in each of
// its deployments: what passes here is what a caller sees, whoever answers.
func TestRepository(t *testing.T) {
	all := map[string]func(*testing.T, *db.DB) Repository{}
	for name, open := range rungs {
		all[name] = func(_ *testing.T, d *db.DB) Repository { return open(d) }
	}
	for _, stage := range []rollout.Stage{rollout.Direct, rollout.Shadow, rollout.Repository} {
		all["switch/"+string(stage)] = func(t *testing.T, d *db.DB) Repository {
			return newSwitch(t, d, stage, func(*cache.Config) {})
		}
	}
	for name, configure := range cachetest.Deployments(t) {
		all["switch/cached/"+name] = func(t *testing.T, d *db.DB) Repository {
			return newSwitch(t, d, rollout.Cached, configure)
		}
	}
	for name, open := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := openDB(t)
			testRepository(t, d, open(t, d))
		})
	}
}

func openDB(t testing.TB) *db.DB {
	t.Helper()
	return cachetest.OpenDB(t, Migrations())
}

// newSwitch returns the ladder at a stage, over a cache of its own.
func newSwitch(t testing.TB, d *db.DB, stage rollout.Stage, configure func(*cache.Config)) *SwitchRepository {
	t.Helper()
	c, _ := cachetest.Start(t, d, configure)
	postgres := NewPostgresRepository(d)
	return NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: stage, Direct: NewDirectRepository(d), Repository: postgres, Cached: NewCacheRepository(postgres, c), Cache: c,
	})
}

// testRepository is the conformance suite.
func testRepository(t *testing.T, d *db.DB, repo Repository) {
	t.Helper()
	ctx := t.Context()
	service := &Service{repo: repo}

	t.Run("an event comes back as it was recorded", func(t *testing.T) {
		want := Event{
			Action: "user.updated", Actor: Ref{"api_key", "backend"}, Target: Ref{User, "user_1"}, IP: "2001:db8::1",
			UserAgent: `curl/8 "quoted" \ {}`, RequestID: "req-1", RecordedBy: "backend",
			Metadata: json.RawMessage(`{"z":1.00,"a":{"b":["\u0000",1e400]},"a":"twice"}`),
		}
		recorded := record(t, service, want)[0]
		if age := time.Since(recorded.OccurredAt); age < -time.Minute || age > time.Minute {
			t.Errorf("occurred_at is %v away from now", age)
		}
		want.ID, want.OccurredAt, want.Origin = recorded.ID, recorded.OccurredAt, recorded.Origin
		got, err := repo.ByID(ctx, recorded.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !same(got, want) || !same(recorded, want) {
			t.Errorf("recorded %+v\nread     %+v\nwant     %+v", recorded, got, want)
		}
	})

	t.Run("an event with nothing optional", func(t *testing.T) {
		recorded := record(t, service, Event{Action: "job.ran", Actor: Ref{Type: System}})[0]
		got, err := repo.ByID(ctx, recorded.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Origin != nil || got.IP != "" || string(got.Metadata) != "{}" || !same(got, recorded) {
			t.Errorf("got %+v, want %+v", got, recorded)
		}
	})

	t.Run("an unknown id", func(t *testing.T) {
		if _, err := repo.ByID(ctx, ids.New()); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})

	t.Run("events are lost with their transaction", func(t *testing.T) {
		var lost []Event
		failed := errors.New("failed")
		err := d.InTx(ctx, func(ctx context.Context) error {
			var err error
			if lost, err = service.Record(ctx, Event{Action: "a.b", Actor: Ref{System, ""}, IP: "10.0.0.1"}); err != nil {
				return err
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Fatal(err)
		}
		if _, err := repo.ByID(ctx, lost[0].ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})

	t.Run("a batch shares one origin and one time", func(t *testing.T) {
		batch := make([]Event, 2500)
		for i := range batch {
			batch[i] = Event{Action: "user.imported", Actor: Ref{"api_key", "importer"}, Target: Ref{User, fmt.Sprint("imported", i)}, IP: "10.1.1.1"}
		}
		recorded := record(t, service, batch...)
		for _, i := range []int{0, 1, 1000, 2499} {
			got, err := repo.ByID(ctx, recorded[i].ID)
			if err != nil {
				t.Fatal(err)
			}
			if !same(got, recorded[i]) || !slices.Equal(got.Origin, recorded[0].Origin) || !got.OccurredAt.Equal(recorded[0].OccurredAt) {
				t.Errorf("event %d: got %+v, want %+v", i, got, recorded[i])
			}
		}
	})

	t.Run("lists", func(t *testing.T) { testList(t, repo, service) })
	t.Run("erasure", func(t *testing.T) { testErasure(t, repo, service) })
}

func testList(t *testing.T, repo Repository, service *Service) {
	t.Helper()
	ctx := t.Context()
	alice, bob := "user_alice", "user_bob"
	var all []Event
	for i := range 12 {
		e := Event{Action: "note.written", Actor: Ref{User, alice}, Target: Ref{"note", fmt.Sprint("n", i)}, IP: "192.0.2.1"}
		switch i % 4 {
		case 1:
			e.Action, e.Target = "note.shared", Ref{User, bob}
		case 2:
			e.Actor = Ref{User, bob}
		case 3:
			e.Actor, e.Target = Ref{"robot", bob}, Ref{User, alice}
		}
		if i == 9 {
			e.Actor, e.Target = Ref{User, bob}, Ref{User, bob} // one event, although both branches of a subject match
		}
		all = append(all, record(t, service, e)...)
	}
	first, last := all[0].OccurredAt, all[len(all)-1].OccurredAt
	after := last.Add(time.Microsecond)
	tests := []struct {
		name   string
		filter Filter
		want   func(Event) bool
	}{
		{"by actor", Filter{Actor: Ref{ID: alice}}, func(e Event) bool { return e.Actor.ID == alice }},
		{"by actor of a type", Filter{Actor: Ref{"robot", bob}}, func(e Event) bool { return e.Actor == Ref{"robot", bob} }},
		{"by target", Filter{Target: Ref{ID: bob}}, func(e Event) bool { return e.Target.ID == bob }},
		{"by target of a type", Filter{Target: Ref{"note", "n0"}}, func(e Event) bool { return e.Target == Ref{"note", "n0"} }},
		{"by action", Filter{Action: "note.shared"}, func(e Event) bool { return e.Action == "note.shared" }},
		{"by actor and action", Filter{Actor: Ref{ID: alice}, Action: "note.shared"}, func(e Event) bool {
			return e.Actor.ID == alice && e.Action == "note.shared"
		}},
		{"by subject", Filter{Subject: bob}, func(e Event) bool { return e.Actor == Ref{User, bob} || e.Target == Ref{User, bob} }},
		{"by subject and action", Filter{Subject: bob, Action: "note.shared"}, func(e Event) bool {
			return e.Action == "note.shared" && (e.Actor == Ref{User, bob} || e.Target == Ref{User, bob})
		}},
		{"from is inclusive", Filter{From: &last}, func(e Event) bool { return !e.OccurredAt.Before(last) }},
		{"to is exclusive", Filter{From: &first, To: &last}, func(e Event) bool { return e.OccurredAt.Before(last) }},
		{"from and to", Filter{From: &first, To: &after}, func(Event) bool { return true }},
		{"nobody", Filter{Actor: Ref{ID: "user_carol"}}, func(Event) bool { return false }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var want []Event
			for _, e := range slices.Backward(all) {
				if test.want(e) {
					want = append(want, e)
				}
			}
			for _, limit := range []int{2, 5, 100} {
				f := test.filter
				f.Limit = limit
				var got []Event
				for {
					page, err := repo.List(ctx, f)
					if err != nil {
						t.Fatal(err)
					}
					if len(page) > limit {
						t.Fatalf("a page of %d, limit %d", len(page), limit)
					}
					got = append(got, page...)
					if len(page) < limit {
						break
					}
					f.After = &Position{page[limit-1].OccurredAt, page[limit-1].ID}
				}
				if !slices.EqualFunc(got, want, same) {
					t.Errorf("limit %d: got %v, want %v", limit, eventIDs(got), eventIDs(want))
				}
			}
		})
	}
}

func testErasure(t *testing.T, repo Repository, service *Service) {
	t.Helper()
	ctx := t.Context()
	const gone, kept = "user_gone", "user_kept"
	recorded := record(
		t, service,
		Event{Action: "user.created", Actor: Ref{Type: Anonymous}, Target: Ref{User, gone}, IP: "192.0.2.9", UserAgent: "phone"},
		Event{Action: "session.created", Actor: Ref{User, gone}, Target: Ref{"session", "ses_1"}, IP: "192.0.2.9", UserAgent: "phone"},
		Event{Action: "user.updated", Actor: Ref{User, kept}, Target: Ref{User, gone}, IP: "192.0.2.10", UserAgent: "phone"},
	)
	for range 3 { // whatever is cached is so now
		for _, e := range recorded {
			if got, err := repo.ByID(ctx, e.ID); err != nil || !same(got, e) {
				t.Fatalf("before the erasure: %+v, %v", got, err)
			}
		}
	}
	if err := service.Erase(ctx, gone); err != nil {
		t.Fatal(err)
	}
	if has, err := repo.HasOrigins(ctx, gone); has || err != nil {
		t.Errorf("origins are left: %t, %v", has, err)
	}
	for i, wantIP := range []string{"", "", "192.0.2.10"} {
		got, err := repo.ByID(ctx, recorded[i].ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.IP != wantIP || (got.UserAgent == "") != (wantIP == "") {
			t.Errorf("event %d has ip %q and user agent %q", i, got.IP, got.UserAgent)
		}
		if got.leafHash() != recorded[i].leafHash() {
			t.Errorf("event %d has another leaf after the erasure", i)
		}
	}
}

func record(t testing.TB, service *Service, events ...Event) []Event {
	t.Helper()
	recorded, err := service.Record(t.Context(), events...)
	if err != nil {
		t.Fatalf("record: %v %+v", err, errs.From(err).Fields)
	}
	return recorded
}

func same(a, b Event) bool {
	return a.IP == b.IP && a.UserAgent == b.UserAgent && slices.Equal(a.Leaf(), b.Leaf())
}

func eventIDs(events []Event) []uuid.UUID {
	var all []uuid.UUID
	for _, e := range events {
		all = append(all, e.ID)
	}
	return all
}

// TestErasureBehindTheCache erases a person by somebody else's statement: within a second no instance shows the address.
func TestErasureBehindTheCache(t *testing.T) {
	t.Parallel()
	d := openDB(t)
	repo := newSwitch(t, d, rollout.Cached, func(*cache.Config) {})
	e := record(t, &Service{repo: repo}, Event{Action: "a.b", Actor: Ref{User, "user_x"}, IP: "10.0.0.1"})[0]
	if got, err := repo.ByID(t.Context(), e.ID); err != nil || got.IP == "" {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := d.SQL().ExecContext(t.Context(), `DELETE FROM audit_origins WHERE subject_id = 'user_x'`); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := repo.ByID(t.Context(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.IP == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the address is still shown")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestErasedEventsAreNotStale: who asks for them does not see the origin that the cache still holds.
func TestErasedEventsAreNotStale(t *testing.T) {
	stored := Event{ID: ids.New(), Action: "user.created", IP: "192.0.2.1", UserAgent: "curl/8", Origin: []byte{1}}
	erased, moved, forged := stored, stored, stored
	erased.IP, erased.UserAgent = "", ""
	moved.IP = "192.0.2.2"
	forged.Action = "user.deleted"
	for name, tt := range map[string]struct {
		served, stored Event
		want           bool
	}{
		"the same":         {stored, stored, true},
		"erased meanwhile": {stored, erased, true},
		"of nobody":        {erased, erased, true},
		"without origin":   {erased, stored, false},
		"another origin":   {moved, stored, false},
		"another event":    {forged, erased, false},
	} {
		if got := sameEvent(tt.served, tt.stored); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestCacheAnswers reads an event until that takes no query any more.
func TestCacheAnswers(t *testing.T) {
	t.Parallel()
	d := openDB(t)
	below := &counting{Repository: NewPostgresRepository(d)}
	c, _ := cachetest.Start(t, d, func(*cache.Config) {})
	repo := NewCacheRepository(below, c)
	e := record(t, &Service{repo: repo}, Event{Action: "a.b", Actor: Ref{User, "user_x"}, IP: "10.0.0.1"})[0]
	deadline := time.Now().Add(time.Minute)
	for {
		before := below.reads.Load()
		got, err := repo.ByID(t.Context(), e.ID)
		if err != nil || !same(got, e) {
			t.Fatalf("%+v, %v", got, err)
		}
		if below.reads.Load() == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("every read went to PostgreSQL")
		}
		time.Sleep(time.Millisecond)
	}
}

// counting counts the reads that reach a rung.
type counting struct {
	Repository
	reads atomic.Int64
}

func (c *counting) ByID(ctx context.Context, id uuid.UUID) (Event, error) {
	c.reads.Add(1)
	return c.Repository.ByID(ctx, id)
}

func (c *counting) HasOrigins(ctx context.Context, subjectID string) (bool, error) {
	c.reads.Add(1)
	return c.Repository.HasOrigins(ctx, subjectID)
}
