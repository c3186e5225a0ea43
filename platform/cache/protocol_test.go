package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// The harness: several instances on one database and one Redis; readers and writers on few keys through all of them; SQL
// writers that know nothing of the cache; transactions that are rolled back; random pauses between the protocol's steps;
// and a fault. A reader notes what was acknowledged before it begins, and must not see less.
//
// CACHE_SOAK=10m lets each run last that long, CACHE_SEED=n repeats its choices.

const (
	harnessInstances = 3
	harnessKeys      = 8
)

type harness struct {
	setup
	t         *testing.T
	server    *dbtest.RedisServer
	sentinel  *dbtest.RedisSentinelGroup // of the two
	nodes     []*dbtest.RedisServer      // of a cluster
	direct    *redis.Client              // to the server, past the proxies
	proxies   []*proxy
	instances []*instance
	keys      [harnessKeys]history

	reads, stale, poisoned, writes, failures atomic.Int64
	worst                                    atomic.Int64 // ns
}

// A history is what readers of one key may rely on.
type history struct {
	acknowledged atomic.Int64

	mu      sync.Mutex
	foreign []commit // by SQL writers, oldest first
	acks    []commit // for the age of what is stale
}

type commit struct {
	n  int64
	at time.Time
}

func raise(to *atomic.Int64, n int64) {
	old := to.Load()
	for old < n && !to.CompareAndSwap(old, n) {
		old = to.Load()
	}
}

// floor is the least state that a read beginning now may return: what was acknowledged, and what a foreign writer
// committed a second ago.
func (h *history) floor() int64 {
	n, before := h.acknowledged.Load(), time.Now().Add(-time.Second)
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.foreign) > 0 && h.foreign[0].at.Before(before) {
		raise(&h.acknowledged, h.foreign[0].n)
		n = max(n, h.foreign[0].n)
		h.foreign = h.foreign[1:]
	}
	return n
}

func (h *history) acknowledge(n int64) {
	at := time.Now()
	h.mu.Lock()
	h.acks = append(h.acks, commit{n, at})
	h.mu.Unlock()
	raise(&h.acknowledged, n)
}

// age returns for how long it had been acknowledged that n is over.
func (h *history) age(n int64) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.acks {
		if c.n > n {
			return time.Since(c.at)
		}
	}
	return 0
}

// newHarness starts instances that reach one Redis through a proxy each, or what else the deployment is.
func newHarness(t *testing.T, deployment string, sql bool) *harness {
	t.Helper()
	h := &harness{t: t}
	urls := make([]string, harnessInstances)
	switch deployment {
	case "process":
		urls = urls[:1] // two would go without
	case "cluster":
		h.nodes = dbtest.RedisCluster(t)
		for n := range urls {
			urls[n] = clusterURL(h.nodes)
		}
	case "sentinel":
		h.sentinel = dbtest.RedisSentinel(t)
		for n := range urls {
			urls[n] = sentinelURL(h.sentinel)
		}
	default:
		h.server = dbtest.Redis(t, "--maxmemory-policy", "allkeys-lru")
		h.direct = redis.NewClient(&redis.Options{Addr: h.server.Addr, MaxRetries: -1})
		t.Cleanup(func() { _ = h.direct.Close() })
		for n := range urls {
			h.proxies = append(h.proxies, newProxy(t, h.server.Addr))
			urls[n] = h.proxies[n].url()
		}
	}
	h.setup = newSetup(t, "")
	h.sql = sql
	for k := range harnessKeys {
		h.exec(t, `INSERT INTO things (id) VALUES ($1)`, strconv.Itoa(k))
	}
	for _, url := range urls {
		one := h.setup
		one.config.RedisURL = url
		if deployment == "redis" {
			one.config.Entries = 0
		}
		h.instances = append(h.instances, one.start(t))
	}
	h.instances[0].warm(t, "0")
	return h
}

// run reads and writes until the fault returns, and a little longer.
func (h *harness) run(rng *rand.Rand, fault func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var all sync.WaitGroup
	for _, i := range h.instances {
		for range 4 {
			seed := rng.Uint64()
			all.Go(func() { h.read(ctx, i, rand.New(rand.NewPCG(seed, 1))) })
		}
		for range 2 {
			seed := rng.Uint64()
			all.Go(func() { h.write(ctx, i, rand.New(rand.NewPCG(seed, 2))) })
		}
	}
	seed := rng.Uint64()
	all.Go(func() { h.writeForeign(ctx, rand.New(rand.NewPCG(seed, 3))) })
	fault()
	cancel()
	all.Wait()
}

func (h *harness) read(ctx context.Context, i *instance, rng *rand.Rand) {
	for ctx.Err() == nil {
		k := rng.IntN(harnessKeys)
		floor := h.keys[k].floor()
		got, err := i.get(ctx, strconv.Itoa(k))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.failures.Add(1)
			h.t.Errorf("read: %v", err)
		case got.Poison:
			h.poisoned.Add(1)
		case got.N < floor:
			h.stale.Add(1)
			raise(&h.worst, int64(h.keys[k].age(got.N)))
		}
		h.reads.Add(1)
		if rng.IntN(50) == 0 {
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		}
	}
}

var errRollback = errors.New("rolled back on purpose")

func (h *harness) write(ctx context.Context, i *instance, rng *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		k, poison := rng.IntN(harnessKeys), rng.IntN(100) < 15
		var n int64
		err := h.db.InTx(context.WithoutCancel(ctx), func(ctx context.Context) error {
			if err := i.Touch(ctx, i.things.Key(Text(strconv.Itoa(k)))); err != nil {
				return err
			}
			row := h.db.Querier(ctx).QueryRowContext(ctx,
				`UPDATE things SET n = n + 1, poison = $2 WHERE id = $1 RETURNING n`, strconv.Itoa(k), poison)
			if err := row.Scan(&n); err != nil {
				return err
			}
			if rng.IntN(4) == 0 {
				time.Sleep(time.Duration(rng.IntN(4000)) * time.Microsecond)
			}
			if poison {
				return errRollback
			}
			return nil
		})
		switch {
		case err == nil:
			h.keys[k].acknowledge(n)
			h.writes.Add(1)
		case !errors.Is(err, errRollback):
			h.t.Errorf("write: %v", err)
		}
	}
}

func (h *harness) writeForeign(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
		k := rng.IntN(harnessKeys)
		var n int64
		row := h.db.Querier(ctx).QueryRowContext(context.WithoutCancel(ctx), // tries again where its connection was killed
			`UPDATE things SET n = n + 1 WHERE id = $1 RETURNING n`, strconv.Itoa(k))
		if err := row.Scan(&n); err != nil {
			h.t.Errorf("foreign write: %v", err)
			return
		}
		at := time.Now()
		h.keys[k].mu.Lock()
		h.keys[k].foreign = append(h.keys[k].foreign, commit{n, at})
		h.keys[k].acks = append(h.keys[k].acks, commit{n, at})
		h.keys[k].mu.Unlock()
	}
}

func (h *harness) report(name string) {
	process, shared, misses := 0, 0, 0
	for _, i := range h.instances {
		process, shared, misses = process+i.process(), shared+i.redis(), misses+i.misses()
	}
	h.t.Logf("%-28s reads %8d  in process %5.1f %%  redis %4.1f %%  writes %5d  stale %d (worst %s)  uncommitted %d",
		name, h.reads.Load(), 100*float64(process)/float64(h.reads.Load()), 100*float64(shared)/float64(h.reads.Load()),
		h.writes.Load(), h.stale.Load(), time.Duration(h.worst.Load()).Round(time.Millisecond), h.poisoned.Load())
}

// pauses stalls a step now and then: mostly a little, and rarely for longer than any lease or marker lives.
func pauses() func(string) {
	return func(string) {
		switch n := rand.IntN(4000); {
		case n == 0:
			time.Sleep(1500 * time.Millisecond)
		case n < 4:
			time.Sleep(400 * time.Millisecond)
		case n < 400:
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
	}
}

// A fault is what goes wrong while the harness runs for d.
type fault struct {
	name       string
	deployment string // in process and Redis unless it says otherwise
	happen     func(h *harness, d time.Duration, rng *rand.Rand)
}

func nothing(_ *harness, d time.Duration, _ *rand.Rand) { time.Sleep(d) }

var protocolFaults = []fault{
	{"none", "", nothing},
	{"none, in process only", "process", nothing},
	{"none, redis only", "redis", nothing},
	{"none, cluster", "cluster", nothing},
	{"redis restarted empty", "", func(h *harness, d time.Duration, _ *rand.Rand) {
		time.Sleep(d / 3)
		h.server.Stop()
		time.Sleep(d / 6)
		h.server.Start()
		time.Sleep(d / 2)
	}},
	{"redis restarted at once", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			h.save()
			time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
			h.server.Stop()
			h.server.Start()
			time.Sleep(2 * time.Second)
		}
	}},
	{"redis frozen", "", func(h *harness, d time.Duration, _ *rand.Rand) {
		time.Sleep(d / 3)
		h.server.Pause()
		time.Sleep(d / 3)
		h.server.Resume()
		time.Sleep(d / 3)
	}},
	{"redis flushed", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(2500)) * time.Millisecond) {
			h.direct.FlushAll(h.t.Context())
		}
	}},
	{"keys evicted", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) {
			key := h.direct.RandomKey(h.t.Context()).Val()
			if rng.IntN(20) > 0 && (len(key) < 5 || key[len(key)-4:] == "meta") {
				continue // losing it ends an epoch; not all the time
			}
			h.direct.Del(h.t.Context(), key)
		}
	}},
	{"redis slow for one, cut off another", "", func(h *harness, d time.Duration, _ *rand.Rand) {
		time.Sleep(d / 4)
		h.proxies[0].delay.Store(int64(100 * time.Millisecond))
		h.proxies[1].cut.Store(true)
		time.Sleep(d / 2)
		h.proxies[0].delay.Store(0)
		h.proxies[1].cut.Store(false)
		time.Sleep(d / 4)
	}},
	{"announcements lost", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(50)) * time.Millisecond) {
			h.direct.ClientKillByFilter(h.t.Context(), "TYPE", "pubsub")
		}
	}},
	{"the relay leaves", "", func(h *harness, d time.Duration, _ *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
			h.exec(h.t, `UPDATE cache_relay SET expires_at = now() - interval '1 second'`)
		}
	}},
	{"the relay's connection killed", "", func(h *harness, d time.Duration, rng *rand.Rand) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond) {
			h.exec(h.t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%cache' || '_relay%'`) // not this query's own connection
		}
	}},
	{"redis restarted, redis only", "redis", func(h *harness, d time.Duration, _ *rand.Rand) {
		h.save()
		time.Sleep(d / 2)
		h.server.Stop()
		h.server.Start()
		time.Sleep(d / 2)
	}},
	{"a node of the cluster restarted", "cluster", func(h *harness, d time.Duration, _ *rand.Rand) {
		time.Sleep(d / 3)
		h.nodes[1].Stop()
		time.Sleep(d / 3)
		h.nodes[1].Start()
		time.Sleep(d / 3)
	}},
}

// save keeps a snapshot of Redis for its next start.
func (h *harness) save() { h.direct.Save(h.t.Context()) }

func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64()
	if s := os.Getenv("CACHE_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CACHE_SEED=%d", n)
	return n
}

func duration(t *testing.T, short time.Duration) time.Duration {
	t.Helper()
	s := os.Getenv("CACHE_SOAK")
	if s == "" {
		return short
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestNoStaleReads is the promise: nothing older than what was acknowledged, nothing uncommitted, no failed request.
func TestNoStaleReads(t *testing.T) {
	from := seed(t)
	const short = 1500 * time.Millisecond
	d := duration(t, short)
	setFaults(t, faultSwitches{pause: pauses()})
	turns := make(chan struct{}, 3) // more than that, and the machine is the fault
	all := slices.Concat(protocolFaults, failoverFaults)
	if d > short {
		all = append(all, rareFaults...)
	}
	for n, f := range all {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			turns <- struct{}{}
			defer func() { <-turns }()
			rng := rand.New(rand.NewPCG(from, uint64(n)))
			h := newHarness(t, f.deployment, n%2 == 0)
			h.run(rng, func() { f.happen(h, d, rng) })
			h.report(f.name)
			if h.stale.Load() > 0 || h.poisoned.Load() > 0 {
				t.Errorf("%d stale, %d uncommitted of %d reads", h.stale.Load(), h.poisoned.Load(), h.reads.Load())
			}
		})
	}
}

// TestHarnessFindsStaleReads shows that the harness can fail: what everyone writes, a delete after COMMIT, does.
func TestHarnessFindsStaleReads(t *testing.T) {
	h := newHarness(t, "", true)
	setFaults(t, faultSwitches{deleteAfterCommit: true})
	rng := rand.New(rand.NewPCG(seed(t), 0))
	h.run(rng, func() { until(t, "a stale read", func() bool { return h.stale.Load() > 0 }) })
	h.report("delete after commit")
}

// setFaults switches faults on until the instances of this test have stopped.
func setFaults(t *testing.T, f faultSwitches) {
	t.Helper()
	faults.Store(&f)
	t.Cleanup(func() { faults.Store(&faultSwitches{}) })
}
