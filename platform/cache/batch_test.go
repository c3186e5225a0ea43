package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// A batching is a tier in Redis whose pipelines the test can hold up. Waits in it end with the test alone.
type batching struct {
	*shared
	belief *belief

	mu      sync.Mutex
	lookups []int // by pipeline
	before  func(pipeline int) error

	beforeScript func()
}

func newBatching(t *testing.T, server *dbtest.RedisServer, before func(pipeline int) error) *batching {
	t.Helper()
	s, err := openShared(Config{RedisURL: server.URL, KeyPrefix: "t", RedisTimeout: time.Minute}, "owner")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	client, ok := s.client.(*redis.Client)
	if !ok {
		t.Fatalf("%T", s.client)
	}
	client.Options().ReadTimeout, client.Options().PoolTimeout, s.gather = time.Minute, time.Minute, time.Minute
	b := &batching{shared: s, before: before}
	client.AddHook(b)
	b.belief = &belief{epoch: strings.Repeat("e", epochLen), reign: reign(s.control.Info(t.Context(), "replication").Val())}
	return b
}

func (*batching) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *batching) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		if b.beforeScript != nil {
			b.beforeScript()
		}
		return next(ctx, command)
	}
}

func (b *batching) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		if commands[len(commands)-1].Name() != "info" {
			return next(ctx, commands) // go-redis greets Redis
		}
		b.mu.Lock()
		pipeline := len(b.lookups)
		b.lookups = append(b.lookups, len(commands)-1)
		b.mu.Unlock()
		if err := b.before(pipeline); err != nil {
			for _, c := range commands {
				c.SetErr(err)
			}
			return err
		}
		return next(ctx, commands)
	}
}

// store fills a name with itself.
func (b *batching) store(t *testing.T, id string) {
	t.Helper()
	value := fmt.Sprintf("V%s%c%08x%s", b.belief.epoch, present, 0, id)
	if err := b.control.Set(t.Context(), b.entityKey(0, thingName(id)), value, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

// hits reads a name, and reports whether that was answered with itself.
func (b *batching) hits(ctx context.Context, id string) bool {
	got, _ := b.read(ctx, thingName(id), b.belief, name{})
	return got.outcome == outcomeHit && got.found.body == id
}

// known returns how many lookups have been sent, or gather.
func (b *batching) known() (n int) {
	b.mu.Lock()
	for _, lookups := range b.lookups {
		n += lookups
	}
	b.mu.Unlock()
	q := &b.batches[0]
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next != nil {
		n += q.next.lookups
	}
	return n
}

// holding keeps the first batches from Redis until it is released, so that what comes then gathers.
func holding(t *testing.T, server *dbtest.RedisServer) (b *batching, held *sync.WaitGroup, release func()) {
	t.Helper()
	gate := make(chan struct{})
	b = newBatching(t, server, func(pipeline int) error {
		if pipeline < batchesAway {
			<-gate
		}
		return nil
	})
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	held = &sync.WaitGroup{}
	for n := range batchesAway {
		held.Go(func() { b.read(t.Context(), thingName("held"), b.belief, name{}) })
		until(t, "a batch is away", func() bool { return b.known() == n+1 })
	}
	return b, held, release
}

// TestBatchMembers gathers lookups, some of which fail, in more batches than one.
func TestBatchMembers(t *testing.T) {
	t.Parallel()
	b, all, release := holding(t, dbtest.Redis(t))
	elsewhere := &belief{epoch: b.belief.epoch, reign: "another"}
	if err := b.control.RPush(t.Context(), b.entityKey(0, thingName("list")), "not a string").Err(); err != nil {
		t.Fatal(err)
	}
	members := 0
	look := func(id string, in *belief, want outcome) {
		all.Go(func() {
			got, _ := b.read(t.Context(), thingName(id), in, name{})
			if got.outcome != want || want == outcomeHit && got.found.body != id {
				t.Errorf("%s: outcome %d, %q; want outcome %d", id, got.outcome, got.found.body, want)
			}
		})
		members++
		until(t, "the lookup gathers", func() bool { return b.known() == batchesAway+members })
	}
	for members < 2*batchSize {
		id := fmt.Sprint("stored", members)
		b.store(t, id)
		look(id, b.belief, outcomeHit)
		look(id, elsewhere, outcomeStale)
		look(fmt.Sprint("absent", members), b.belief, outcomeLeased)
		look("list", b.belief, outcomeStale) // says the script, for there is no marker
	}
	look("stored0", b.belief, outcomeHit)
	release()
	all.Wait()
	if want := append(slices.Repeat([]int{1}, batchesAway), batchSize, batchSize, 1); fmt.Sprint(b.lookups) != fmt.Sprint(want) {
		t.Errorf("batches of %v lookups, want %v", b.lookups, want)
	}
}

// TestBatchContexts ends the context of the reader who would send the others' lookups, and gives another one less time.
func TestBatchContexts(t *testing.T) {
	t.Parallel()
	b, all, release := holding(t, dbtest.Redis(t))
	b.store(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	for n := range 3 {
		all.Go(func() {
			if !b.hits(ctx, "a") {
				t.Error("no hit with those whose first has been cancelled")
			}
		})
		until(t, "the lookup gathers", func() bool { return b.known() == batchesAway+n+1 })
	}
	cancel()
	hurried, cancel := context.WithTimeout(t.Context(), b.timeout/2)
	defer cancel()
	if !b.hits(hurried, "a") {
		t.Error("no hit for who has no time to wait for others")
	}
	release()
	all.Wait()
}

// TestBatchStuck leaves the first batches where they are for good.
func TestBatchStuck(t *testing.T) {
	t.Parallel()
	b, all, release := holding(t, dbtest.Redis(t))
	b.store(t, "a")
	b.gather = time.Millisecond
	for range 3 {
		if !b.hits(t.Context(), "a") {
			t.Error("no hit behind a batch that is stuck")
		}
	}
	release()
	all.Wait()
}

// TestBatchUnanswered lets Redis go while lookups gather.
func TestBatchUnanswered(t *testing.T) {
	t.Parallel()
	server := dbtest.Redis(t)
	b, all, release := holding(t, server)
	for n := range batchSize / 2 {
		all.Go(func() {
			if got, _ := b.read(t.Context(), thingName("a"), b.belief, name{}); got.outcome != outcomeDown {
				t.Errorf("outcome %d", got.outcome)
			}
		})
		until(t, "the lookup gathers", func() bool { return b.known() == batchesAway+n+1 })
	}
	server.Stop()
	release()
	all.Wait()
	if got := b.breakers[0].failures.Load(); got != batchesAway+1 {
		t.Errorf("the breaker counts %d failures, want one for each batch, %d", got, batchesAway+1)
	}
}

// TestBatchStorm has many readers, while some batches are late and some are lost.
func TestBatchStorm(t *testing.T) {
	t.Parallel()
	const readers, names, reads = 48, 200, 100
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	b := newBatching(t, dbtest.Redis(t), func(int) error {
		time.Sleep(time.Duration(draw(300)) * time.Microsecond)
		if draw(10) == 0 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	b.gather = 100 * time.Microsecond
	for n := range names {
		b.store(t, strconv.Itoa(n))
	}
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for range reads {
				id, also := strconv.Itoa(draw(names)), strconv.Itoa(draw(names))
				got, beside := b.read(t.Context(), thingName(id), b.belief, thingName(also))
				switch {
				case got.outcome == outcomeDown:
				case got.outcome != outcomeHit || got.found.body != id || beside.outcome != outcomeHit || beside.found.body != also:
					t.Errorf("%s and %s: outcomes %d and %d, %q and %q", id, also, got.outcome, beside.outcome, got.found.body, beside.found.body)
				}
			}
		})
	}
	all.Wait()
	if q := &b.batches[0]; q.away != 0 || q.next != nil {
		t.Errorf("%d batches are still away, %v gathers", q.away, q.next)
	}
}
