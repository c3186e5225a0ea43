//go:build unix

package consistency

import (
	"math/rand/v2"
	"syscall"
	"time"
)

// A fault is what goes wrong while a round goes on for d. It is over when happen returns.
type fault struct {
	name string
	// ofRedis says that nothing but Redis fails: then no request may.
	ofRedis bool
	happen  func(w *world, d time.Duration, rng *rand.Rand)
}

func (w *world) each(do func(i *instance)) {
	for _, i := range w.instances {
		do(i)
	}
}

// between does what begins a fault after a quarter of d, and what ends it after three.
func between(d time.Duration, begin, end func()) {
	time.Sleep(d / 4)
	begin()
	time.Sleep(d / 2)
	end()
	time.Sleep(d / 4)
}

// again does something over and over, at random times up to so far apart.
func again(d, most time.Duration, rng *rand.Rand, do func()) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(rng.Int64N(int64(most))))
		do()
	}
	time.Sleep(settleAfterFaults)
}

var faults = []fault{
	{"none", true, func(_ *world, d time.Duration, _ *rand.Rand) { time.Sleep(d) }},
	{"redis down", true, func(w *world, d time.Duration, _ *rand.Rand) {
		between(d, w.redis.Stop, w.redis.Start)
	}},
	{"redis frozen", true, func(w *world, d time.Duration, _ *rand.Rand) {
		between(d, w.redis.Pause, w.redis.Resume)
	}},
	{"redis frozen for moments", true, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 800*time.Millisecond, rng, func() {
			w.redis.Pause()
			time.Sleep(time.Duration(rng.IntN(1200)) * time.Millisecond)
			w.redis.Resume()
		})
	}},
	{"redis full", true, func(w *world, d time.Duration, _ *rand.Rand) {
		between(d, func() {
			w.tell("config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1")
		}, func() {
			w.tell("config", "set", "maxmemory", "0", "maxmemory-policy", "allkeys-lru")
		})
	}},
	{"redis flushed", true, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 3*time.Second, rng, func() { w.tell("flushall") })
	}},
	{"keys evicted", true, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 20*time.Millisecond, rng, func() { w.evict(rng) })
	}},
	{"redis restarted empty", true, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 4*time.Second, rng, func() {
			w.redis.Stop()
			w.redis.Start()
		})
	}},
	{"redis restarted from an old snapshot", true, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 2*time.Second, rng, func() {
			w.tell("save")
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
			w.redis.Stop()
			w.redis.Start()
		})
	}},
	{"redis cut off from one", true, func(w *world, d time.Duration, rng *rand.Rand) {
		cut := w.instances[rng.IntN(instances)].toRedis
		between(d, func() { cut.setFrozen(true) }, func() { cut.setFrozen(false) })
	}},
	{"redis cut off from the relay", true, func(w *world, d time.Duration, _ *rand.Rand) {
		cut := w.leader().toRedis
		between(d, func() { cut.setFrozen(true) }, func() { cut.setFrozen(false) })
	}},
	{"redis refuses two", true, func(w *world, d time.Duration, rng *rand.Rand) {
		spared := rng.IntN(instances)
		set := func(down bool) {
			for n, i := range w.instances {
				if n != spared {
					i.toRedis.setDown(down)
				}
			}
		}
		between(d, func() { set(true) }, func() { set(false) })
	}},
	{"redis slow by 100 ms", true, func(w *world, d time.Duration, _ *rand.Rand) {
		slow := func(by time.Duration) func() {
			return func() { w.each(func(i *instance) { i.toRedis.delay.Store(int64(by)) }) }
		}
		between(d, slow(50*time.Millisecond), slow(0)) // either way
	}},
	{"redis slow for one", true, func(w *world, d time.Duration, rng *rand.Rand) {
		line := w.instances[rng.IntN(instances)].toRedis
		between(d, func() { line.delay.Store(int64(50 * time.Millisecond)) }, func() { line.delay.Store(0) })
	}},
	{"postgres down", false, func(w *world, d time.Duration, _ *rand.Rand) {
		set := func(down bool) func() { return func() { w.each(func(i *instance) { i.toSQL.setDown(down) }) } }
		between(d, set(true), set(false))
	}},
	{"postgres frozen", false, func(w *world, d time.Duration, _ *rand.Rand) {
		set := func(frozen bool) func() { return func() { w.each(func(i *instance) { i.toSQL.setFrozen(frozen) }) } }
		between(d, set(true), set(false))
	}},
	{"postgres cut off from the relay", false, func(w *world, d time.Duration, _ *rand.Rand) {
		cut := w.leader().toSQL
		between(d, func() { cut.setFrozen(true) }, func() { cut.setFrozen(false) })
	}},
	{"an instance killed", false, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 2*time.Second, rng, func() {
			w.instances[rng.IntN(instances)].restart(time.Duration(rng.IntN(1500)) * time.Millisecond)
		})
	}},
	{"the relay killed", false, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, 2*time.Second, rng, func() { w.leader().restart(time.Duration(rng.IntN(1500)) * time.Millisecond) })
	}},
	{"an instance stopped", false, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, time.Second, rng, func() { w.instances[rng.IntN(instances)].stall(rng) })
	}},
	{"the relay stopped", false, func(w *world, d time.Duration, rng *rand.Rand) {
		again(d, time.Second, rng, func() { w.leader().stall(rng) })
	}},
}

// brief is what the short run goes through, one after the other in one round.
var brief = fault{"several, one by one", false, func(w *world, d time.Duration, rng *rand.Rand) {
	time.Sleep(d / 8)
	w.redis.Pause()
	time.Sleep(d / 8)
	w.redis.Resume()
	w.tell("flushall")
	time.Sleep(d / 4)
	w.leader().stall(rng)
	time.Sleep(d / 8)
	w.redis.Stop()
	time.Sleep(d / 8)
	w.redis.Start()
	time.Sleep(d / 8)
	w.leader().signal(syscall.SIGKILL)
	time.Sleep(d / 8)
}}

// stall stops the process for up to 3 s: for less than a lease, for more than that, for more than a marker lives.
func (i *instance) stall(rng *rand.Rand) {
	i.t.Helper()
	i.signal(syscall.SIGSTOP)
	time.Sleep([]time.Duration{
		time.Duration(rng.IntN(250)) * time.Millisecond,
		250*time.Millisecond + time.Duration(rng.IntN(1000))*time.Millisecond,
		time.Second + time.Duration(rng.IntN(2000))*time.Millisecond,
	}[rng.IntN(3)])
	i.signal(syscall.SIGCONT)
}

// tell makes Redis do something, past the links.
func (w *world) tell(command ...any) {
	w.t.Helper()
	if err := w.control.Do(w.t.Context(), command...).Err(); err != nil {
		w.t.Errorf("tell redis to %v: %v", command[0], err)
	}
}

// evict loses any key, the protocol's own too. Those end an epoch, so they are spared most of the time.
func (w *world) evict(rng *rand.Rand) {
	key := w.control.RandomKey(w.t.Context()).Val()
	if rng.IntN(100) > 0 && (len(key) < 5 || key[len(key)-4:] == "meta") {
		return
	}
	w.control.Del(w.t.Context(), key)
}
