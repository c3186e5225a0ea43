package cache

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

func TestAFullRedisStillInvalidates(t *testing.T) {
	t.Parallel()
	server := dbtest.Redis(t, "--maxmemory-policy", "noeviction")
	s := newSetup(t, server.URL)
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	one, two := s.start(t), s.start(t)
	one.warm(t, "a")
	two.warm(t, "a")
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	if err := client.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "more", "x", 0).Err(); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Fatalf("redis is not full: %v", err)
	}
	const writes = 20
	for n := int64(1); n <= writes; n++ {
		if err := one.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, two, "a", n)
	}
	if unconfirmed := count(one.metrics.unconfirmed); unconfirmed > writes/2 { // some may be, on a busy machine
		t.Errorf("%v of %d writes were not confirmed", unconfirmed, writes)
	}
	two.warm(t, "a") // the leases go on
}

func TestNothingIsServedOnceTheRelayIsGone(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	i := s.start(t)
	i.warm(t, "a")
	s.exec(t, `UPDATE cache_relay SET fence = fence + 1, holder = '', expires_at = 'infinity'`) // whoever that is
	s.exec(t, `UPDATE things SET n = 5`)
	time.Sleep(time.Second)
	wantN(t, i, "a", 5)
	hits := i.process() + i.redis()
	wantN(t, i, "a", 5)
	if i.process()+i.redis() != hits {
		t.Error("answered from memory without a relay")
	}
}

func TestPostgreSQLDownMeansNoCachedAnswer(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", dbtest.Redis(t).URL} {
		s := newSetup(t, url)
		s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
		i := s.start(t)
		i.warm(t, "a")
		// The database refuses every statement from now on, as far as this test's connections can tell.
		own, err := db.Open(t.Context(), db.Config{
			URL: dbtest.URL(t), MaxOpen: 1, MaxIdle: 1, MaxLifetime: time.Hour, MaxIdleTime: time.Hour,
			AcquireTimeout: time.Second, TxTimeout: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = own.Close() }()
		var name string
		if err := s.db.SQL().QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
			t.Fatal(err)
		}
		if _, err := own.SQL().ExecContext(t.Context(), `ALTER DATABASE `+name+` ALLOW_CONNECTIONS false`); err != nil {
			t.Fatal(err)
		}
		if _, err := own.SQL().ExecContext(t.Context(),
			`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1`, name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got, err := i.get(t.Context(), "a"); err == nil {
			t.Errorf("redis %q: answered %+v without PostgreSQL", url, got)
		}
	}
}

func TestTwoProcessesWithoutRedisGoWithout(t *testing.T) {
	t.Parallel()
	s := newSetup(t, "")
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	one := s.start(t)
	one.warm(t, "a")
	two := s.start(t)
	for n := int64(1); n < 4; n++ { // from the first moment on
		if err := two.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, one, "a", n)
		if err := one.write(t.Context(), "a", `UPDATE things SET n = n + 100 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, two, "a", n+100)
		s.exec(t, `UPDATE things SET n = $1`, n)
		time.Sleep(time.Second)
		wantN(t, one, "a", n)
	}
	for _, i := range []*instance{one, two} {
		if i.groups[0].lease.valid(clock()) {
			t.Error("serves from memory beside another process")
		}
	}
	one.stop()
	two.warm(t, "a") // alone again
}

// TestAProcessWithoutRedisLeavesTheRelayToThoseWithIt: it was first, and leads; the others' cache must not be out of use
// because of that.
func TestAProcessWithoutRedisLeavesTheRelayToThoseWithIt(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	without := s
	without.config.RedisURL = ""
	one := without.start(t)
	one.warm(t, "a")
	two := s.start(t)
	two.warm(t, "a")
	for n := int64(1); n < 4; n++ {
		if err := one.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, two, "a", n)
	}
	if one.groups[0].lease.valid(clock()) {
		t.Error("serves from memory beside others")
	}
	two.stop()
	one.warm(t, "a") // alone again
}

// Whoever finds work done by a transaction that has not told the caches yet answers as if that had.
func TestAWriteWaitsForOthersUnderWay(t *testing.T) {
	t.Parallel()
	deployments(t, func(t *testing.T, s setup) {
		s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
		reader := s.start(t)
		writer := reader
		if s.config.RedisURL != "" {
			writer = s.start(t)
		}
		for n := int64(1); n < 20; n++ {
			reader.warm(t, "a")
			s.exec(t, `UPDATE things SET n = $1`, n) // and nobody is told
			if err := writer.Touch(t.Context(), Underway("thing")); err != nil {
				t.Fatal(err)
			}
			wantN(t, reader, "a", n)
		}
	})
}

// A process that has nothing to believe for the moment, as when its turn to run came late, still knows from Redis who does.
func TestABoundedWriteWaitsForThoseWhoBelieve(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	s.options.Bounded = true
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	reader, writer := s.start(t), s.start(t)
	for n := int64(1); n < 5; n++ {
		reader.warm(t, "a")
		hears := &reader.groups[0].mu
		hears.Lock()
		time.AfterFunc(50*time.Millisecond, hears.Unlock)
		writer.groups[0].belief.Store(nil)
		if err := writer.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, reader, "a", n)
	}
}

func TestOneTransactionPaysForOneInvalidation(t *testing.T) {
	t.Parallel()
	s := newSetup(t, dbtest.Redis(t).URL)
	i := s.start(t)
	i.warm(t, "a")
	before := i.groups[0].position().pos
	err := s.db.InTx(t.Context(), func(ctx context.Context) error {
		return errors.Join(i.Touch(ctx, "thing:a", "thing:b"), i.Touch(ctx, "thing:c"), i.Touch(ctx, "thing:a"))
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "one log entry", func() bool { return i.groups[0].position().pos == before+1 })
	i.touched.Range(func(any, any) bool {
		t.Error("a finished transaction is remembered")
		return false
	})
}

func TestFollowersSurviveACancelledLeader(t *testing.T) {
	t.Parallel()
	s := newSetup(t, "")
	s.exec(t, `INSERT INTO things (id, n) VALUES ('a', 3), ('b', 4)`)
	i := s.start(t)
	i.warm(t, "a")
	leader, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{}, 2)
	things := i.entity(s.options, func(ctx context.Context, id ID) (thing, error) {
		entered <- struct{}{}
		if len(entered) == 1 {
			<-ctx.Done()
			return thing{}, ctx.Err()
		}
		return i.load(ctx, id)
	})
	led := make(chan error, 1)
	go func() {
		_, err := things.Get(leader, Text("b"))
		led <- err
	}()
	until(t, "a leader", func() bool { return len(entered) == 1 })
	followed := make(chan error, 1)
	go func() {
		got, err := things.Get(t.Context(), Text("b"))
		if err == nil && got.N != 4 {
			err = errors.New("an empty value")
		}
		followed <- err
	}()
	time.Sleep(10 * time.Millisecond) // most likely it follows now; if not, it leads as well
	cancel()
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Fatalf("leader: %v", err)
	}
	if err := <-followed; err != nil {
		t.Fatalf("follower: %v", err)
	}
}

func TestALoadThatPanicsLeavesNobodyWaiting(t *testing.T) {
	t.Parallel()
	s := newSetup(t, "")
	i := s.start(t)
	i.warm(t, "a")
	things := i.entity(s.options, func(context.Context, ID) (thing, error) { panic("no") })
	for range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = things.Get(t.Context(), Text("b"))
		}()
	}
}

func TestASlowRedisIsLeftAlone(t *testing.T) {
	t.Parallel()
	server := dbtest.Redis(t)
	s := newSetup(t, "")
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	var proxies []*proxy
	var instances []*instance
	for n := range 2 {
		proxies = append(proxies, newProxy(t, server.Addr))
		s.config.RedisURL = proxies[n].url()
		instances = append(instances, s.start(t))
		instances[n].warm(t, "a")
	}
	retired := func() (is bool) {
		if err := s.db.SQL().QueryRowContext(t.Context(), `SELECT epoch = '' FROM cache_epoch`).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	for _, p := range proxies {
		p.delay.Store(int64(100 * time.Millisecond))
	}
	until(t, "it is out of use", retired)
	for n := int64(1); n < 4; n++ {
		if err := instances[0].write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
			t.Fatal(err)
		}
		wantN(t, instances[1], "a", n)
	}
	for _, p := range proxies {
		p.delay.Store(0)
	}
	until(t, "it is in use", func() bool { return !retired() })
	for _, i := range instances {
		i.warm(t, "a")
	}
}

func TestWhatAnOperatorIsWarnedOf(t *testing.T) {
	t.Parallel()
	open := func(s setup) *bytes.Buffer {
		t.Helper()
		var log bytes.Buffer
		c, err := Open(t.Context(), s.config, s.db, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if s.config.RedisURL == "" {
			r := newRelay(c)
			if _, err := r.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(r.disconnect)
		}
		return &log
	}
	for policy, warned := range map[string]bool{"noeviction": true, "allkeys-random": true, "allkeys-lru": false, "volatile-lru": false} {
		log := open(newSetup(t, dbtest.Redis(t, "--maxmemory-policy", policy).URL))
		if strings.Contains(log.String(), "maxmemory-policy") != warned {
			t.Errorf("%s: logged %q", policy, log)
		}
	}
	alone := newSetup(t, "")
	const without = "another instance is up and there is no Redis"
	if log := open(alone); strings.Contains(log.String(), without) {
		t.Errorf("one process: logged %q", log)
	}
	if log := open(alone); !strings.Contains(log.String(), without) {
		t.Errorf("two processes: logged %q", log)
	}
}
