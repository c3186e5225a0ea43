package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/errs"
)

// Reader is the reads of the toy module of these tests.
type Reader interface {
	ByID(ctx context.Context, id string) (item, error)
	List(ctx context.Context) ([]item, error)
}

// itemRepository is the toy module's whole repository.
type itemRepository interface {
	Reader
	Rename(ctx context.Context, id, name string) (item, error)
}

type item struct {
	ID, Name string
	Volatile int `json:"-"`
}

var errNoItem = errs.New(errs.NotFound, "item_not_found", "There is no such item.")

// shelf is a Repository on a table of its own; wrong makes it err.
type shelf struct {
	db    *db.DB
	wrong func(ctx context.Context, q db.Querier, i *item) error
}

func (s *shelf) ByID(ctx context.Context, id string) (item, error) {
	var i item
	q := s.db.Querier(ctx)
	err := q.QueryRowContext(ctx, `SELECT id, name FROM items WHERE id = $1`, id).Scan(&i.ID, &i.Name)
	if db.IsNoRows(err) {
		return i, errNoItem
	}
	if err == nil && s.wrong != nil {
		err = s.wrong(ctx, q, &i)
	}
	return i, err
}

func (s *shelf) List(ctx context.Context) ([]item, error) {
	i, err := s.ByID(ctx, "1")
	return []item{i}, err
}

func (s *shelf) Rename(ctx context.Context, id, name string) (item, error) {
	i := item{ID: id, Name: name}
	_, err := s.db.Querier(ctx).ExecContext(ctx, `UPDATE items SET name = $2 WHERE id = $1`, id, name)
	return i, err
}

// toy is an instance with the ladder of the toy module, and a way to read and write through it.
type toy struct {
	instance
	db          *db.DB
	ladder      *Ladder[itemRepository]
	direct, orm *shelf
}

func newToy(t testing.TB, at Setting, options ...func(*Config, *Spec)) *toy {
	t.Helper()
	d := dbtest.Open(t, Migrations())
	if _, err := d.SQL().ExecContext(t.Context(),
		`CREATE TABLE items (id text PRIMARY KEY, name text); INSERT INTO items VALUES ('1', 'ada@example.org')`); err != nil {
		t.Fatal(err)
	}
	options = append([]func(*Config, *Spec){func(c *Config, s *Spec) {
		c.PollInterval, c.Sample, s.Methods = 50*time.Millisecond, 100, MethodsOf[Reader]()
	}}, options...)
	f := &toy{instance: newInstance(t, d, at, options...), db: d, direct: &shelf{db: d}, orm: &shelf{db: d}}
	f.ladder = &Ladder[itemRepository]{DB: d, Module: f.users, Direct: f.direct, Repository: f.orm, Cached: f.orm}
	return f
}

func (f *toy) byID(ctx context.Context, id string) (item, error) {
	return Read(ctx, f.ladder, "ByID", id, func(ctx context.Context, rung Reader) (item, error) { return rung.ByID(ctx, id) })
}

func (f *toy) rename(ctx context.Context, id, name string) error {
	_, err := Write(ctx, f.ladder, id, nil, func(ctx context.Context, rung itemRepository) (item, error) {
		return rung.Rename(ctx, id, name)
	})
	return err
}

func (f *toy) mustRead(t *testing.T, id string) item {
	t.Helper()
	i, err := f.byID(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// counted waits until so many comparisons are done, and returns the counts.
func (f *toy) counted(t *testing.T, compared uint64) tally {
	t.Helper()
	eventually(t, fmt.Sprintf("%d comparisons", compared), func() bool { return f.users.counters.compared.Load() >= compared })
	return f.users.counters.tally()
}

func TestEqualPathsCompareEqual(t *testing.T) {
	for _, at := range []Setting{{Shadow, Whole}, {Repository, Whole}} {
		t.Run(string(at.Stage), func(t *testing.T) {
			f := newToy(t, at)
			f.orm.wrong = func(_ context.Context, _ db.Querier, i *item) error { i.Volatile = 1; return nil }
			f.run(t)
			f.mustRead(t, "1")
			if _, err := f.byID(t.Context(), "none"); !errors.Is(err, errNoItem) {
				t.Fatal(err)
			}
			got := f.counted(t, 2)
			if got.Compared != 2 || got.Mismatched != 0 || got.Methods["ByID"] != 2 || got.Methods["List"] != 0 {
				t.Errorf("counted %+v", got)
			}
			if d, r := got.Paths[direct].Reads.calls(), got.Paths[repository].Reads.calls(); d != 2 || r != 2 {
				t.Errorf("%d reads on direct, %d on repository; want 2 each", d, r)
			}
		})
	}
}

func TestDifferencesAreReportedWithoutValues(t *testing.T) {
	for _, at := range []Setting{{Shadow, Whole}, {Repository, Whole}} {
		t.Run(string(at.Stage), func(t *testing.T) {
			f := newToy(t, at)
			f.orm.wrong = func(_ context.Context, _ db.Querier, i *item) error { i.Name = "grace@example.org"; return nil }
			f.run(t)
			if got, want := f.mustRead(t, "1").Name == "ada@example.org", at.Stage == Shadow; got != want {
				t.Errorf("direct answers: %v, want %v", got, want)
			}
			if got := f.counted(t, 1); got.Mismatched != 1 {
				t.Fatalf("counted %+v", got)
			}
			var reports []Mismatch
			eventually(t, "the report is published", func() bool {
				var err error
				reports, err = f.Mismatches(t.Context(), "users", 10)
				return err == nil && len(reports) == 1
			})
			r := reports[0]
			if r.Method != "ByID" || r.KeyHash == "" || !reflect.DeepEqual(r.Differences, []Difference{{"/Name", "changed"}}) {
				t.Errorf("report %+v", r)
			}
			if data, err := json.Marshal(r); err != nil || strings.Contains(string(data), "example.org") {
				t.Errorf("report %s, %v", data, err)
			}
		})
	}
}

func TestPathsThatFailOrWriteAreCaught(t *testing.T) {
	for name, statement := range map[string]string{
		"failing": `SELECT nothing FROM items`,
		"writing": `UPDATE items SET name = 'changed by a read' WHERE id = '1'`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newToy(t, Setting{Shadow, Whole})
			f.orm.wrong = func(ctx context.Context, q db.Querier, _ *item) error {
				_, err := q.ExecContext(ctx, statement)
				return db.Translate(err, nil)
			}
			f.run(t)
			f.mustRead(t, "1")
			if got := f.counted(t, 1); got.Mismatched != 1 || got.Paths[repository].errors() == 0 {
				t.Errorf("counted %+v", got)
			}
			if got := f.mustRead(t, "1").Name; got != "ada@example.org" {
				t.Errorf("the name is %q", got)
			}
		})
	}
}

func TestWritesInBetweenAreNoMismatches(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.mustRead(t, "1")
	if err := f.rename(t.Context(), "1", "another name"); err != nil {
		t.Fatal(err)
	}
	f.run(t) // only now is the first answer compared
	if got := f.counted(t, 1); got.Mismatched != 0 {
		t.Errorf("counted %+v", got)
	}
}

func TestWhatWasAskedAtAnotherStageDoesNotCount(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.orm.wrong = func(_ context.Context, _ db.Querier, i *item) error { i.Name = "wrong"; return nil }
	f.mustRead(t, "1")
	f.mustMove(t, Setting{Shadow, Whole / 2})
	f.orm.wrong = nil
	f.mustMove(t, Setting{Shadow, Whole})
	f.run(t) // only now is the queue worked off
	f.mustRead(t, "1")
	if got := f.counted(t, 1); got.Compared != 1 || got.Mismatched != 0 {
		t.Errorf("counted %+v", got)
	}
}

func TestReadsInTransactionsAreNotCompared(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.run(t)
	err := f.db.InTx(t.Context(), func(ctx context.Context) error {
		if err := f.rename(ctx, "1", "not committed"); err != nil {
			return err
		}
		i, err := f.byID(ctx, "1")
		if i.Name != "not committed" {
			t.Errorf("the transaction reads %q", i.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.mustRead(t, "1")
	if got := f.counted(t, 1); got.Compared != 1 {
		t.Errorf("counted %+v", got)
	}
}

func TestFullQueueDropsAndNobodyWaits(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole}, func(c *Config, _ *Spec) { c.Queue = 2 })
	for range 5 { // nobody works the queue off
		f.mustRead(t, "1")
	}
	if got := f.users.counters.tally(); got.Dropped != 3 {
		t.Errorf("counted %+v", got)
	}
}

// TestDifferencesAreNotCrowdedOut: a queue full of answers must not keep a difference from being confirmed.
func TestDifferencesAreNotCrowdedOut(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole}, func(c *Config, _ *Spec) { c.Queue, c.Workers = 1, 1 })
	f.orm.wrong = func(_ context.Context, _ db.Querier, i *item) error { i.Name = "wrong"; return nil }
	f.mustRead(t, "1")
	f.users.compare.next(t.Context()) // finds a difference
	f.mustRead(t, "1")                // fills the queue
	eventually(t, "the difference waits to be looked at again", func() bool { return len(f.users.compare.doubts) == 1 })
	f.users.compare.next(t.Context())
	if got := f.users.counters.tally(); got.Mismatched != 1 || got.Dropped != 0 {
		t.Errorf("counted %+v", got)
	}
}

// TestPathsThatPanicHarmNobody in shadow, and count as failing where they answer.
func TestPathsThatPanicHarmNobody(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.orm.wrong = func(context.Context, db.Querier, *item) error { panic("wrong") }
	f.run(t)
	f.mustRead(t, "1")
	if got := f.counted(t, 1); got.Mismatched != 1 || got.Paths[repository].errors() == 0 {
		t.Errorf("counted %+v", got)
	}
	f.mustMove(t, Setting{Repository, Whole})
	before := f.users.counters.reads[repository].errors.Load()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not reach the caller")
			}
		}()
		_, _ = f.byID(t.Context(), "1")
	}()
	if got := f.users.counters.reads[repository].errors.Load(); got != before+1 {
		t.Errorf("%d failures counted, want one more than %d", got, before)
	}
}

// TestSilentPathsProveNothing: a comparison that could not be made must not look like one that was not needed.
func TestSilentPathsProveNothing(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.orm.wrong = func(context.Context, db.Querier, *item) error { return errs.ErrTimeout }
	f.run(t)
	f.mustRead(t, "1")
	eventually(t, "the comparison is dropped", func() bool { return f.users.counters.dropped.Load() == 1 })
}

// TestSampleSeesBothSidesOfTheCohort: a method whose only key lies outside of it would never be compared.
func TestSampleSeesBothSidesOfTheCohort(t *testing.T) {
	f := newToy(t, Setting{Repository, 0})
	f.orm.wrong = func(_ context.Context, _ db.Querier, i *item) error { i.Name = "wrong"; return nil }
	f.users.spec.MismatchBudget = 10_000
	f.run(t)
	if got := f.mustRead(t, "1").Name; got == "wrong" {
		t.Error("the repository answers outside of the cohort")
	}
	if got := f.counted(t, 1); got.Mismatched != 1 {
		t.Errorf("counted %+v", got)
	}
}

func TestComparisonsReadUnderTheirRole(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole}, func(c *Config, _ *Spec) { c.CompareRole = "pg_read_all_data" })
	seen := make(chan string, 1)
	f.orm.wrong = func(ctx context.Context, q db.Querier, _ *item) error {
		var role string
		err := q.QueryRowContext(ctx, `SELECT current_user`).Scan(&role)
		seen <- role
		return err
	}
	f.run(t)
	f.mustRead(t, "1")
	if role := <-seen; role != "pg_read_all_data" {
		t.Errorf("compared under %q", role)
	}
}

func TestWritesRunOnceOnThePathOfTheirCohort(t *testing.T) {
	f := newToy(t, Setting{Repository, Whole / 2})
	for i := range 100 {
		if err := f.rename(t.Context(), strconv.Itoa(i), "name"); err != nil {
			t.Fatal(err)
		}
	}
	got := f.users.counters.tally()
	d, r := got.Paths[direct].Writes.calls(), got.Paths[repository].Writes.calls()
	if d+r != 100 || d < 25 || r < 25 {
		t.Errorf("%d writes on direct, %d on repository", d, r)
	}
}

func TestDiff(t *testing.T) {
	tests := []struct {
		name, a, b string
		want       []Difference
	}{
		{"equal", `{"a":1}`, `{"a":1}`, nil},
		{"order of members", `{"a":1,"b":[2]}`, `{"b":[2],"a":1}`, nil},
		{"scalar", `1`, `2`, []Difference{{"", "changed"}}},
		{"large numbers", `10000000000000001`, `10000000000000002`, []Difference{{"", "changed"}}},
		{"types", `{"a":{"b":1}}`, `{"a":[1]}`, []Difference{{"/a", "changed"}}},
		{"null", `{"a":null}`, `{"a":{"b":1}}`, []Difference{{"/a", "changed"}}},
		{"empty", `{"a":null,"b":{}}`, `{"a":[],"b":null}`, nil},
		{"null and zero", `{"a":null}`, `{"a":0}`, []Difference{{"/a", "changed"}}},
		{"members", `{"a":1,"b":{"c":2}}`, `{"b":{"d":2}}`, []Difference{{"/a", "missing"}, {"/b/c", "missing"}, {"/b/d", "added"}}},
		{"elements", `[1,2]`, `[1,3,4]`, []Difference{{"/1", "changed"}, {"/2", "added"}}},
		{"fewer elements", `[1]`, `[]`, []Difference{{"/0", "missing"}}},
		{"personal names", `{"ada@example.org":1}`, `{"ada@example.org":2}`, []Difference{{"/*", "changed"}}},
	}
	for _, tt := range tests {
		if got := diff(outcome{value: []byte(tt.a)}, outcome{value: []byte(tt.b)}); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got := diff(outcome{code: "not_found"}, outcome{value: []byte(`1`)}); !reflect.DeepEqual(got, []Difference{{"", "error"}}) {
		t.Errorf("error and value: %+v", got)
	}
}
