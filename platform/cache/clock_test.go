package cache

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// A world has true time, from which Redis' wall clock departs, and a relay, which marks every 40 ms as mark.lua does.
type world struct {
	now    time.Duration
	redis  time.Duration // how far Redis' clock is ahead
	frozen bool          // Redis' machine: nothing runs there, its clock neither
	silent bool          // the relay has stalled

	asked     time.Duration // t0 on Redis' clock
	trueAsked time.Duration
	marked    time.Duration
	fresh     time.Duration
	honest    time.Duration // until when the marker may be believed in truth
}

func (w *world) clock() time.Duration { return w.now + w.redis }

// tick passes 10 ms.
func (w *world) tick() {
	w.now += 10 * time.Millisecond
	switch {
	case w.frozen:
		w.redis -= 10 * time.Millisecond
	case w.now%(40*time.Millisecond) == 0 && !w.silent:
		w.mark()
	}
}

func (w *world) mark() {
	if end := w.asked + freshFor; end >= w.fresh {
		w.fresh, w.honest = end, w.trueAsked+freshFor
	}
	if w.asked > w.clock() || w.fresh > w.clock()+freshFor {
		w.fresh = 0
	}
	w.marked, w.asked, w.trueAsked = w.clock(), w.clock(), w.now
}

// answer is what a sync gets.
func (w *world) answer() reading {
	r := reading{now: w.clock(), end: w.fresh}
	if r.now >= r.end || r.now < w.marked {
		r.end = 0
	}
	return r
}

func TestAMarkerIsNotBelievedForLongerThanItVouches(t *testing.T) {
	const step = 10 * time.Millisecond
	for name, happen := range map[string]func(w *world, at time.Duration){
		"nothing":                       func(*world, time.Duration) {},
		"the relay stalls":              func(w *world, _ time.Duration) { w.silent = true },
		"set back a little":             func(w *world, at time.Duration) { w.redis -= once(at, 30*time.Millisecond) },
		"set back and the relay stalls": func(w *world, at time.Duration) { w.redis -= once(at, 500*time.Millisecond); w.silent = true },
		"set back further": func(w *world, at time.Duration) {
			w.redis -= once(at, 880*time.Millisecond)
			w.silent = at < 2*time.Second
		},
		"set back by an hour":               func(w *world, at time.Duration) { w.redis -= once(at, time.Hour); w.silent = at < 2*time.Second },
		"set forward and the relay stalls":  func(w *world, at time.Duration) { w.redis += once(at, 500*time.Millisecond); w.silent = true },
		"suspended for a moment":            func(w *world, at time.Duration) { w.frozen = at < 400*time.Millisecond },
		"suspended for long":                func(w *world, at time.Duration) { w.frozen = at < 5*time.Second },
		"suspended, and the relay gives up": func(w *world, at time.Duration) { w.frozen, w.silent = at < 5*time.Second, true },
	} {
		for _, latency := range []time.Duration{0, step, 15 * step} {
			w, m := &world{redis: time.Hour}, &measure{}
			var believed time.Duration
			for w.now < 20*time.Second {
				if at := w.now - 3*time.Second; at >= 0 {
					happen(w, at)
				}
				asked := w.now
				for range 1 + latency/step {
					w.tick()
				}
				if !w.frozen {
					believed = m.end("epoch", asked, w.answer())
				}
				if tolerance := 2 * step; believed > w.now && believed > w.honest+tolerance {
					t.Errorf("%s, latency %s: at %s believed until %s, which is true until %s", name, latency, w.now, believed, w.honest)
					break
				}
				for range 4 {
					w.tick()
				}
			}
			if !w.silent && believed < w.now+leaseFor {
				t.Errorf("%s, latency %s: nothing is believed in the end", name, latency)
			}
		}
	}
}

// once returns d at the first moment of what happens.
func once(at, d time.Duration) time.Duration {
	if at > 0 {
		return 0
	}
	return d
}

func TestTwoServersHaveTwoClocks(t *testing.T) {
	m := &measure{}
	for at := time.Duration(0); at < time.Second; at += syncEvery {
		m.end("one", at, reading{now: time.Hour + at, end: time.Hour + at + freshFor})
	}
	if end := m.end("two", time.Second, reading{now: time.Minute, end: time.Minute + freshFor - time.Millisecond}); end != 0 {
		t.Errorf("a marker from before the first answer is believed until %s", end)
	}
	if end := m.end("two", time.Second+syncEvery, reading{now: time.Minute + syncEvery, end: time.Minute + freshFor}); end != time.Second+freshFor {
		t.Errorf("believed until %s, want %s", end, time.Second+freshFor)
	}
}

func TestASuspendedProcessHasLostItsLease(t *testing.T) {
	asleep := func(from instant, mono, wall time.Duration) instant {
		return instant{mono: from.mono + mono, wall: from.wall + int64(wall)}
	}
	for name, test := range map[string]struct {
		mono, wall time.Duration
		valid      bool
	}{
		"awake":                                {100 * time.Millisecond, 100 * time.Millisecond, true},
		"too late":                             {300 * time.Millisecond, 300 * time.Millisecond, false},
		"suspended with its monotonic clock":   {10 * time.Millisecond, time.Hour, false},
		"its wall clock was set back":          {300 * time.Millisecond, -time.Hour, false},
		"its wall clock was set back, in time": {100 * time.Millisecond, -time.Hour, true},
	} {
		var l lease
		from := clock()
		l.extend(from, leaseFor)
		if got := l.valid(asleep(from, test.mono, test.wall)); got != test.valid {
			t.Errorf("%s: valid %v, want %v", name, got, test.valid)
		}
	}
}

// TestASuspendedProcessAloneHasLostItsLease suspends a process that is its own relay between its drain and the marker.
func TestASuspendedProcessAloneHasLostItsLease(t *testing.T) {
	g := newGroup(0)
	g.at.epoch = "epoch"
	asked := instant{mono: time.Minute, wall: clock().wall}
	m := &memory{c: &Cache{groups: []*group{g}}, asked: asked}
	t0 := asked.mono.Milliseconds()
	if _, _, _ = m.mark(t.Context(), 0, "epoch", t0); !g.lease.valid(asked) {
		t.Fatal("no lease")
	}
	g.lease.revoke()
	m.asked = instant{mono: asked.mono, wall: asked.wall - int64(time.Hour)} // only this clock noticed how long ago the drain was
	if _, _, _ = m.mark(t.Context(), 0, "epoch", t0); g.lease.valid(asked) {
		t.Error("the marker outlives the suspension")
	}
}

// TestARedisThatWasSuspendedWithItsClockIsNotBelieved cuts all instances off, and gives the marker in Redis the rest of
// the life that it would still have there.
func TestARedisThatWasSuspendedWithItsClockIsNotBelieved(t *testing.T) {
	t.Parallel()
	server := dbtest.Redis(t)
	s := newSetup(t, "")
	s.exec(t, `INSERT INTO things (id) VALUES ('a')`)
	s.config.Entries = 0
	start := func() (*proxy, *instance) {
		p := newProxy(t, server.Addr)
		s.config.RedisURL = p.url()
		return p, s.start(t)
	}
	relaying, leader := start()
	leader.warm(t, "a")
	reading, i := start()
	i.warm(t, "a")

	relaying.cut.Store(true)
	reading.cut.Store(true)
	s.exec(t, `UPDATE things SET n = 5`)
	time.Sleep(measuredFor)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer func() { _ = client.Close() }()
	now := client.Time(t.Context()).Val().UnixMilli()
	if err := client.HSet(t.Context(), i.shared.metaKey(0), "marked", now-20, "fresh", now-40+freshFor.Milliseconds()).Err(); err != nil {
		t.Fatal(err)
	}
	reading.cut.Store(false)
	until(t, "redis answers again", func() bool { return !i.shared.breaker(0).open.Load() })
	for range 100 {
		wantN(t, i, "a", 5)
	}
}
