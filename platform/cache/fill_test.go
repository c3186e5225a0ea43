package cache

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestFills stores more at once than may wait while Redis is slow to take the first, when some may not be stored any more,
// and closes the client upon that.
func TestFills(t *testing.T) {
	t.Parallel()
	const extra = 3
	server := dbtest.Redis(t)
	b := newBatching(t, server, func(int) error { return nil })
	gate, began := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	stats := &kindMetrics{rejectedRedis: prometheus.NewCounter(prometheus.CounterOpts{Name: "rejected"})}
	want := map[string]string{} // by key; empty: not stored
	var fills []fill
	var leases []any
	for n := range 1 + fillsWaiting + extra {
		c := claim{key: b.entityKey(0, thingName(strconv.Itoa(n))), lease: b.lease(b.belief.epoch)}
		f := fill{t.Context(), c, stored(b.belief.epoch, []byte(strconv.Itoa(n)), n%2 == 0), time.Minute, stats}
		fills, leases, want[c.key] = append(fills, f), append(leases, c.key, c.lease), f.value
	}
	if err := b.control.MSet(t.Context(), leases...).Err(); err != nil {
		t.Fatal(err)
	}
	lost := func(n int, args ...any) {
		key := fills[n].claim.key
		want[key] = ""
		if err := b.control.Do(t.Context(), "del", key).Err(); err != nil {
			t.Fatal(err)
		}
		if len(args) > 0 {
			if err := b.control.Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	lost(0)
	lost(5, "rpush", fills[5].claim.key, "not a string")
	lost(fillsAtOnce+1, "set", fills[fillsAtOnce+1].claim.key, "of somebody else")
	for n := range extra {
		want[fills[len(fills)-1-n].claim.key] = ""
	}

	b.beforeScript = func() {
		begin()
		<-gate
	}
	b.fillSoon(fills[0])
	<-began
	for _, f := range fills[1:] {
		b.fillSoon(f)
	}
	close(gate)
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
	if q := &b.fills[0]; q.working || q.bytes != 0 || q.waiting != nil {
		t.Errorf("%d of %d bytes still wait", len(q.waiting), q.bytes)
	}
	b.fillSoon(fills[1]) // too late: it is not waited for, and does no harm

	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	for key, value := range want {
		got, err := client.Get(t.Context(), key).Result()
		if value != "" && got != value || value == "" && err == nil && got[0] == 'V' {
			t.Errorf("%s holds %q, want %q (%v)", key, got, value, err)
		}
	}
	if got := count(stats.rejectedRedis); got != 3+extra+1 {
		t.Errorf("%v are rejected, want %d", got, 3+extra+1)
	}
}

// TestFillsLarge lets values wait that are larger than what waits may be, and takes them in pieces.
func TestFillsLarge(t *testing.T) {
	t.Parallel()
	s := &shared{fills: make([]fills, 1)}
	q := &s.fills[0]
	q.working = true // so that nobody takes them
	stats := &kindMetrics{rejectedRedis: prometheus.NewCounter(prometheus.CounterOpts{Name: "rejected"})}
	f := fill{value: strings.Repeat("x", bytesWaiting/10), stats: stats}
	for range 12 {
		s.fillSoon(f)
	}
	if len(q.waiting) != 10 || count(stats.rejectedRedis) != 2 {
		t.Fatalf("%d wait, %v are rejected", len(q.waiting), count(stats.rejectedRedis))
	}
	for q.working {
		if next := q.take(); len(next) > 3 {
			t.Errorf("%d at once", len(next))
		}
	}
	if q.bytes != 0 {
		t.Errorf("%d bytes still wait", q.bytes)
	}
}
