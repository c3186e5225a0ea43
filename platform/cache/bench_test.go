package cache

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// Each benchmark has its floor beside it: the least that any code could do for the same answer.
//
//	go test -run '^$' -bench . -benchmem ./platform/cache

func BenchmarkHitInProcess(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.config.CheckEvery = 0
	s.exec(b, `INSERT INTO things (id) VALUES ('a')`)
	i := s.start(b)
	i.warm(b, "a")
	load := i.load("a")
	b.Run("cache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := i.things.Get(b.Context(), "a", load); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cache parallel", func(b *testing.B) {
		ctx := b.Context()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = i.things.Get(ctx, "a", load)
			}
		})
	})
	b.Run("floor: map with TTL", func(b *testing.B) {
		var mu sync.Mutex
		values := map[string]entry{"a": {value: thing{}, expires: time.Hour}}
		for b.Loop() {
			mu.Lock()
			e := values["a"]
			mu.Unlock()
			if clock().mono > e.expires {
				b.Fatal("expired")
			}
		}
	})
}

func BenchmarkHitInRedis(b *testing.B) {
	server := dbtest.Redis(b)
	for _, direct := range []bool{true, false} {
		s := newSetup(b, server.URL)
		s.config.Entries, s.options.Direct = 0, direct
		s.config.KeyPrefix = "direct-" + strconv.FormatBool(direct)
		s.exec(b, `INSERT INTO things (id) VALUES ('a')`)
		i := s.start(b)
		i.warm(b, "a")
		load := i.load("a")
		name := "through the plugin"
		if direct {
			name = "direct"
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			misses := i.misses()
			for b.Loop() {
				if _, err := i.things.Get(b.Context(), "a", load); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(100*float64(i.misses()-misses)/float64(b.N), "%miss")
		})
		i.stop()
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	defer func() { _ = client.Close() }()
	client.Set(b.Context(), "k", `{"ID":"a","N":0,"Poison":false}`, 0)
	b.Run("floor: GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			if err := client.Get(ctx, "k").Err(); err != nil {
				b.Fatal(err)
			}
			cancel()
		}
	})
}

func BenchmarkMiss(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.exec(b, `INSERT INTO things (id) SELECT g::text FROM generate_series(0, 9999) g`)
	i := s.start(b)
	i.warm(b, "0")
	b.Run("cache", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			id := strconv.Itoa(n % 10000)
			i.local.invalidate(name{"thing", id})
			if n >= 10000 {
				i.shared.client.Del(b.Context(), i.shared.entityKey(0, name{"thing", id}))
			}
			if _, err := i.get(b.Context(), id); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor: the load", func(b *testing.B) {
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			if _, err := i.load(strconv.Itoa(n % 10000))(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor: pgx", func(b *testing.B) {
		conn, err := pgx.Connect(b.Context(), dbtest.URL(b, Migrations(), things))
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(b.Context(), `INSERT INTO things (id) VALUES ('1')`); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var got thing
			row := conn.QueryRow(b.Context(), `SELECT id, n, poison FROM things WHERE id = $1`, "1")
			if err := row.Scan(&got.ID, &got.N, &got.Poison); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWrite has three instances wait for each other.
func BenchmarkWrite(b *testing.B) {
	s := newSetup(b, dbtest.Redis(b).URL)
	s.exec(b, `INSERT INTO things (id) SELECT g::text FROM generate_series(0, 99) g`)
	i := s.start(b)
	for range 2 {
		s.start(b).warm(b, "0")
	}
	i.warm(b, "0")
	const update = `UPDATE things SET n = n + 1 WHERE id = $1`
	b.Run("cache", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			if err := i.write(b.Context(), strconv.Itoa(n%100), update); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor: the transaction", func(b *testing.B) {
		for n := 0; b.Loop(); n++ {
			err := s.db.InTx(b.Context(), func(ctx context.Context) error {
				_, err := s.db.Querier(ctx).ExecContext(ctx, update, strconv.Itoa(n%100))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("floor: without the trigger", func(b *testing.B) {
		s.exec(b, `ALTER TABLE things DISABLE TRIGGER things_cache`)
		for n := 0; b.Loop(); n++ {
			err := s.db.InTx(b.Context(), func(ctx context.Context) error {
				_, err := s.db.Querier(ctx).ExecContext(ctx, update, strconv.Itoa(n%100))
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
