package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/internal/benchtest"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// Each benchmark has its floor beside it (internal/benchtest). Those of the modules' entities are with the modules.
//
//	go test -run '^$' -bench . ./platform/cache ./modules/...

func BenchmarkHitInProcess(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.config.CheckEvery = 0
	s.exec(b, `INSERT INTO things (id) VALUES ('a')`)
	i := s.start(b)
	i.warm(b, "a")
	get := func() {
		if _, err := i.get(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
	var mu sync.Mutex
	values := map[string]entry{"a": {value: &thing{}, expires: time.Hour}}
	floor := func() {
		mu.Lock()
		e := values["a"]
		mu.Unlock()
		if clock().mono > e.expires {
			b.Fatal("expired")
		}
	}
	b.Run("one reader", func(b *testing.B) {
		benchtest.Pair{Floor: floor, One: get, Times: 1000}.Run(b)
	})
	b.Run("many readers", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				get()
			}
		})
	})
	b.Run("many readers, floor: map with TTL", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				floor()
			}
		})
	})
}

// BenchmarkHitInRedis has a bare GET of the same bytes for a floor.
func BenchmarkHitInRedis(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.config.Entries = 0
	s.exec(b, `INSERT INTO things (id) VALUES ('a'), ('b')`)
	i := s.start(b)
	i.warm(b, "a")
	i.warm(b, "b")
	bare, ok := i.shared.client.(*redis.Client)
	if !ok {
		b.Fatal("not a client of one server")
	}
	key := i.shared.entityKey(0, name{"thing", Text("a")})
	get := func() {
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		if err := bare.Get(ctx, key).Err(); err != nil {
			b.Fatal(err)
		}
	}
	read := func(ctx context.Context, id string) {
		if _, err := i.get(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		misses := i.misses()
		benchtest.Pair{Floor: get, One: func() { read(b.Context(), "a") }}.Run(b)
		if i.misses() > misses+b.N/100 {
			b.Errorf("%d misses", i.misses()-misses)
		}
	})
	b.Run("many readers", func(b *testing.B) {
		benchtest.Pair{Floor: storm(get), One: storm(func() { read(b.Context(), "a") })}.Run(b)
	})
	i.things.Leads(func(thing) string { return i.things.Key(Text("b")) })
	b.Run("two that lead to one another", func(b *testing.B) {
		benchtest.Pair{Floor: get, One: func() {
			ctx := Together(b.Context())
			read(ctx, "a")
			read(ctx, "b")
		}}.Run(b)
	})
}

// BenchmarkMiss has the load alone for a floor, and bare pgx.
func BenchmarkMiss(b *testing.B) {
	const rows = 200_000
	s := newSetup(b, dbtest.Redis(b).URL)
	s.exec(b, `INSERT INTO things (id) SELECT g::text FROM generate_series(0, $1) g`, rows)
	i := s.start(b)
	i.warm(b, "0")
	n := 0
	load := func(n int) {
		if _, err := i.load(b.Context(), Text(strconv.Itoa(n))); err != nil {
			b.Fatal(err)
		}
	}
	get := func(n int) {
		if _, err := i.get(b.Context(), strconv.Itoa(n)); err != nil {
			b.Fatal(err)
		}
	}
	p := benchtest.Pair{
		One: func() { get(n) },
		Before: func() {
			n = (n + 1) % rows
			time.Sleep(500 * time.Microsecond) // the fill of the turn before, which nobody waits for
		},
	}
	b.Run("beside the load", func(b *testing.B) {
		p.Floor = func() { load(n) }
		p.Run(b)
	})
	b.Run("many readers", func(b *testing.B) { // fills and all
		var n atomic.Int64
		next := func() int { return int(n.Add(1) % rows) }
		benchtest.Pair{Floor: storm(func() { load(next()) }), One: storm(func() { get(next()) })}.Run(b)
	})
	b.Run("beside pgx", func(b *testing.B) {
		conn := s.connect(b)
		p.Floor = func() {
			var got thing
			row := conn.QueryRow(b.Context(), `SELECT id, n, poison FROM things WHERE id = $1`, strconv.Itoa(n))
			if err := row.Scan(&got.ID, &got.N, &got.Poison); err != nil {
				b.Fatal(err)
			}
		}
		p.Run(b)
	})
}

// storm makes a turn of many readers at once.
func storm(read func()) func() {
	return func() {
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				for range 16 {
					read()
				}
			})
		}
		all.Wait()
	}
}

// connect returns a bare connection to the database.
func (s setup) connect(b *testing.B) *pgx.Conn {
	b.Helper()
	held, err := s.db.SQL().Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = held.Close() })
	var conn *pgx.Conn
	if err := held.Raw(func(driver any) error {
		pgxConn, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("%T", driver)
		}
		conn = pgxConn.Conn()
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return conn
}

// BenchmarkWrite has the transaction alone for a floor. Three instances wait for each other.
func BenchmarkWrite(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.exec(b, `INSERT INTO things (id) SELECT g::text FROM generate_series(0, 99) g`)
	i := s.start(b)
	for range 2 {
		s.start(b).warm(b, "0")
	}
	i.warm(b, "0")
	const update = `UPDATE things SET n = n + 1 WHERE id = $1`
	change := func(statement string) func() {
		n := 0
		return func() {
			n++
			err := s.db.InTx(b.Context(), func(ctx context.Context) error {
				_, err := s.db.Querier(ctx).ExecContext(ctx, statement, strconv.Itoa(n%100))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("beside the transaction", func(b *testing.B) {
		n := 0
		benchtest.Pair{Floor: change(update), One: func() {
			n++
			if err := i.write(b.Context(), strconv.Itoa(n%100), update); err != nil {
				b.Fatal(err)
			}
		}}.Run(b)
	})
	b.Run("the transaction beside one without the trigger", func(b *testing.B) {
		s.exec(b, `CREATE TABLE plain (LIKE things INCLUDING ALL)`)
		s.exec(b, `INSERT INTO plain SELECT * FROM things`)
		benchtest.Pair{Floor: change(`UPDATE plain SET n = n + 1 WHERE id = $1`), One: change(update)}.Run(b)
	})
	b.Run("the acknowledgements", func(b *testing.B) { // ns/op is what is waited for after the script
		var waited []time.Duration
		for n := 0; b.Loop(); n++ {
			at, _, holders, err := i.shared.invalidate(b.Context(), 0, []name{{"thing", Text(strconv.Itoa(n % 100))}}, "", i.id)
			if err != nil || len(holders) != 3 {
				b.Fatal(len(holders), err)
			}
			start := time.Now()
			i.awaitHolders(b.Context(), i.groups[0], at, holders)
			waited = append(waited, time.Since(start))
		}
		slices.Sort(waited)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(waited[len(waited)*p/100].Microseconds())/1000, fmt.Sprintf("ms-p%d", p))
		}
	})
}
