// Package rollouttest holds two rungs of a module's ladder to doing the same.
package rollouttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/rollout"
)

// seedVariable names the seed of a run to be repeated.
const seedVariable = "STRATA_TEST_SEED"

// Rung is one implementation R of a module's Repository.
type Rung[R any] struct {
	Name string
	Open func(*db.DB) R
}

// Rungs are the first two of a module, each behind its switch, which open returns.
func Rungs[R any](open func(*db.DB, rollout.Stage) R) (rungs [2]Rung[R]) {
	for i, stage := range []rollout.Stage{rollout.Direct, rollout.Repository} {
		rungs[i] = Rung[R]{string(stage), func(d *db.DB) R { return open(d, stage) }}
	}
	return rungs
}

// Step makes one call, or a few that belong together, notes what came of each with Player.Note, and returns the error of
// the last. What it chooses, and all that it invents, must come from p alone.
type Step[R any] func(ctx context.Context, r R, p *Player) error

// Player is what a step draws from, and whom it tells what has come of its calls.
type Player struct {
	*rand.Rand
	notes []string
	marks []time.Time // when each step began, by the database's clock
}

// UUID returns an id.
func (p *Player) UUID() uuid.UUID {
	var id uuid.UUID
	copy(id[:], p.Bytes(len(id)))
	id[6], id[8] = 7<<4|id[6]&0xf, 2<<6|id[8]&0x3f
	return id
}

// Bytes returns n bytes.
func (p *Player) Bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(p.IntN(256)) //nolint:gosec // below 256
	}
	return b
}

// Hours returns a duration that no pause of the test can be taken for.
func (p *Player) Hours(from, to int) time.Duration {
	return time.Duration(from+p.IntN(to-from+1)) * time.Hour
}

// Note notes what came of a call: its result, as JSON, unless it failed. It returns err.
func (p *Player) Note(call string, result any, err error) error {
	var text string
	if err != nil {
		text = "error " + errs.From(err).Code
	} else if data, jerr := json.Marshal(result); jerr != nil {
		text = jerr.Error()
	} else {
		text = string(data)
	}
	p.notes = append(p.notes, call+": "+text)
	return err
}

// Pick returns one of a list, which must not be empty.
func Pick[T any](p *Player, list []T) T { return list[p.IntN(len(list))] }

// Twins plays the same random steps on two rungs, each on a clone of one database, now and then several of them in a
// transaction that may be rolled back, and fails t where what came of a call, or afterwards a row of any table, differs.
// Of a point in time it matters in which step it lies, and how many hours from there. Each clone gets a Step of its own, which may remember what it did.
func Twins[R any](t *testing.T, steps int, open func(testing.TB) *db.DB, rungs [2]Rung[R], newStep func() Step[R]) {
	t.Helper()
	seed := rand.Uint64() //nolint:gosec // no secret
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", seedVariable, err)
		}
	}
	t.Logf("%s=%d repeats this run", seedVariable, seed)
	if found := differences(t, seed, steps, open, rungs, newStep); len(found) > 0 {
		t.Errorf("%d differences, such as\n%s", len(found), strings.Join(found[:min(len(found), 10)], "\n"))
	}
}

// differences is Twins with a seed, without the judgement.
func differences[R any](
	t testing.TB, seed uint64, steps int, open func(testing.TB) *db.DB, rungs [2]Rung[R], newStep func() Step[R],
) []string {
	t.Helper()
	var histories, rows [2][]string
	for i, rung := range rungs {
		d := open(t)
		p := &Player{Rand: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // no secret
		play(t.Context(), d, rung.Open(d), p, steps, newStep())
		histories[i], rows[i] = p.timeless(p.notes), p.timeless(dump(t, d))
	}
	t.Logf("%d calls, %d rows", len(histories[0]), len(rows[0]))
	for i := range min(len(histories[0]), len(histories[1])) {
		if a, b := histories[0][i], histories[1][i]; a != b { // what follows are its consequences
			return []string{fmt.Sprintf("call %d:\n%s %s\n%s %s", i, rungs[0].Name, a, rungs[1].Name, b)}
		}
	}
	var list []string
	for i, rung := range rungs {
		for _, row := range without(rows[i], rows[1-i]) {
			list = append(list, "only after "+rung.Name+": "+row)
		}
	}
	return list
}

var errRolledBack = errors.New("rolled back on purpose")

func play[R any](ctx context.Context, d *db.DB, r R, p *Player, steps int, step Step[R]) {
	for done := 0; done < steps; {
		p.mark(ctx, d)
		if p.IntN(4) > 0 {
			_ = step(ctx, r, p) // noted
			done++
			continue
		}
		together, fate := 2+p.IntN(4), p.IntN(3)
		done += together
		err := d.InTx(ctx, func(ctx context.Context) error {
			for range together {
				p.mark(ctx, d)
				if err := step(ctx, r, p); err != nil {
					return err // as a service does: PostgreSQL takes nothing more in this transaction
				}
			}
			if fate == 0 {
				return errRolledBack
			}
			return nil
		})
		_ = p.Note("transaction", nil, err)
	}
}

// dump returns all rows of all tables but those that say which migrations there were. Identities, which a transaction that
// is rolled back uses up too, are left out; transactions are numbered in their order.
func dump(t testing.TB, d *db.DB) []string {
	t.Helper()
	var lines []string
	for _, query := range column(t, d, `
		SELECT format('SELECT %L || row_to_json(r) FROM (SELECT %s FROM %s) AS r', relname || ' ', string_agg(CASE atttypid
				WHEN 'xid8'::regtype THEN format('dense_rank() OVER (ORDER BY %1$I) AS %1$I', attname)
				ELSE quote_ident(attname) END, ', ' ORDER BY attnum), c.oid::regclass)
		FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attidentity = ''
		WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
			AND relname NOT LIKE 'schema_migrations%' AND relname <> 'cache_outbox'
		GROUP BY c.oid, relname`) {
		lines = append(lines, column(t, d, query)...)
	}
	return append(lines, column(t, d, `SELECT 'cache_outbox ' || name || ' ' || count(*) FROM cache_outbox GROUP BY name`)...)
}

// column returns the only column of a query's result.
func column(t testing.TB, d *db.DB, query string) []string {
	t.Helper()
	rows, err := d.SQL().QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// mark notes that a step begins.
func (p *Player) mark(ctx context.Context, d *db.DB) {
	var now time.Time
	if err := d.SQL().QueryRowContext(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		panic(err) // without PostgreSQL no step gets anywhere
	}
	p.marks = append(p.marks, now)
}

var instant = regexp.MustCompile(`\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})`)

// timeless replaces points in time by what the two clones have in common.
func (p *Player) timeless(texts []string) []string {
	replaced := make([]string, len(texts))
	for i, text := range texts {
		replaced[i] = instant.ReplaceAllStringFunc(text, func(s string) string {
			at, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				panic(err) // the pattern is stricter
			}
			hours := at.Sub(p.marks[0]).Round(time.Hour)
			step := sort.Search(len(p.marks), func(i int) bool { return p.marks[i].After(at.Add(-hours)) })
			return fmt.Sprintf("step %d%+.0fh", step, hours.Hours())
		})
	}
	return replaced
}

// without returns what is in a, as often as it is not in b.
func without(a, b []string) []string {
	count := map[string]int{}
	for _, s := range b {
		count[s]++
	}
	var rest []string
	for _, s := range a {
		if count[s]--; count[s] < 0 {
			rest = append(rest, s)
		}
	}
	return rest
}
