package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// Each benchmark has its floor beside it, the least that any code could do for the same answer, and takes turns with it,
// so that whatever else the machine does slows both:
//
//	go test -run '^$' -bench . ./platform/cache
//
// reports the medians of both, and x-floor, how many times the floor's it is.
func beside(b *testing.B, floor, one func(n int)) {
	b.Helper()
	took := [2][]time.Duration{}
	n := 0
	for b.Loop() {
		for which, f := range [2]func(int){floor, one} {
			start := time.Now()
			f(n)
			took[which] = append(took[which], time.Since(start))
		}
		n++
	}
	allocs := testing.AllocsPerRun(10, func() { one(n) })
	median := func(which int) float64 {
		slices.Sort(took[which])
		return float64(took[which][len(took[which])/2])
	}
	b.ReportMetric(median(1), "ns/op")
	b.ReportMetric(median(0), "floor-ns/op")
	b.ReportMetric(median(1)/median(0), "x-floor")
	b.ReportAllocs()
	b.ReportMetric(allocs, "allocs/op")
}

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
	values := map[string]entry{"a": {value: thing{}, expires: time.Hour}}
	floor := func() {
		mu.Lock()
		e := values["a"]
		mu.Unlock()
		if clock().mono > e.expires {
			b.Fatal("expired")
		}
	}
	b.Run("one reader", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			get()
		}
	})
	b.Run("one reader, floor: map with TTL", func(b *testing.B) {
		for b.Loop() {
			floor()
		}
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
	get := func(id string) func(int) {
		key := i.shared.entityKey(0, name{"thing", id})
		return func(int) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			defer cancel()
			if err := bare.Get(ctx, key).Err(); err != nil {
				b.Fatal(err)
			}
		}
	}
	read := func(ctx context.Context, id string) {
		if _, err := i.get(ctx, id); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		misses := i.misses()
		beside(b, get("a"), func(int) { read(b.Context(), "a") })
		if i.misses() > misses+b.N/100 {
			b.Errorf("%d misses", i.misses()-misses)
		}
	})
	i.things.Leads(func(thing) string { return i.things.Key("b") })
	b.Run("two that lead to one another", func(b *testing.B) {
		beside(b, get("a"), func(int) {
			ctx := Together(b.Context())
			read(ctx, "a")
			read(ctx, "b")
		})
	})
}

// BenchmarkMiss has the load alone for a floor, and bare pgx.
func BenchmarkMiss(b *testing.B) {
	const rows = 200_000
	s := newSetup(b, dbtest.Redis(b).URL)
	s.exec(b, `INSERT INTO things (id) SELECT g::text FROM generate_series(0, $1) g`, rows)
	i := s.start(b)
	i.warm(b, "0")
	var next int
	miss := func(int) {
		next = (next + 1) % rows
		if _, err := i.get(b.Context(), strconv.Itoa(next)); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("beside the load", func(b *testing.B) {
		beside(b, func(n int) {
			if _, err := i.load(b.Context(), strconv.Itoa(n)); err != nil {
				b.Fatal(err)
			}
		}, miss)
	})
	b.Run("beside pgx", func(b *testing.B) {
		conn := s.connect(b)
		beside(b, func(n int) {
			var got thing
			row := conn.QueryRow(b.Context(), `SELECT id, n, poison FROM things WHERE id = $1`, strconv.Itoa(n))
			if err := row.Scan(&got.ID, &got.N, &got.Poison); err != nil {
				b.Fatal(err)
			}
		}, miss)
	})
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
	bare := func(n int) {
		err := s.db.InTx(b.Context(), func(ctx context.Context) error {
			_, err := s.db.Querier(ctx).ExecContext(ctx, update, strconv.Itoa(n%100))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	write := func(n int) {
		if err := i.write(b.Context(), strconv.Itoa(n%100), update); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("beside the transaction", func(b *testing.B) { beside(b, bare, write) })
	b.Run("the acknowledgement alone, beside a bare script", func(b *testing.B) {
		beside(b, func(int) {
			if _, _, _, err := i.shared.invalidate(b.Context(), 0, []name{{"thing", "0"}}, "", i.id); err != nil {
				b.Fatal(err)
			}
		}, func(int) { i.invalidate(b.Context(), []name{{"thing", "0"}}) })
	})
	b.Run("the transaction with the trigger, beside one without", func(b *testing.B) {
		s.exec(b, `CREATE TABLE plain (LIKE things INCLUDING ALL)`)
		s.exec(b, `INSERT INTO plain SELECT * FROM things`)
		beside(b, func(n int) {
			err := s.db.InTx(b.Context(), func(ctx context.Context) error {
				_, err := s.db.Querier(ctx).ExecContext(ctx, `UPDATE plain SET n = n + 1 WHERE id = $1`, strconv.Itoa(n%100))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}, bare)
	})
}
