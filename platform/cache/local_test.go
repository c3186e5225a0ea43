package cache

import (
	"strconv"
	"testing"
	"time"
)

func TestLocalIsBoundedAndForgetsTheLeastRecentlyUsed(t *testing.T) {
	const entries = 10 * shards
	for _, bound := range []struct {
		name    string
		entries int
		bytes   int64
	}{{"by entries", entries, 1 << 30}, {"by bytes", 1 << 20, entries * 100}} {
		t.Run(bound.name, func(t *testing.T) {
			l := newLocal(bound.entries, bound.bytes)
			used := name{"k", Text("used")}
			l.put(used, 0, entry{value: 0, size: 100, expires: time.Hour})
			for i := range 20 * entries {
				n := name{"k", Text(strconv.Itoa(i))}
				if !l.put(n, l.generation(n), entry{value: i, size: 100, expires: time.Hour}) {
					t.Fatal("refused")
				}
				if _, ok := l.get(used, 0); !ok {
					t.Fatalf("what is read all the time was forgotten at %d", i)
				}
			}
			if n, bytes := l.usage(); n != min(bound.entries, int(bound.bytes)/100) || bytes != int64(n)*100 {
				t.Fatalf("%d entries of %d bytes", n, bytes)
			}
		})
	}
}

func TestLocalRefusesWhatWasReadBeforeAnInvalidation(t *testing.T) {
	for what, invalidate := range map[string]func(*local, name){
		"one":        func(l *local, n name) { l.invalidate(n) },
		"everything": func(l *local, _ name) { l.flush() },
	} {
		t.Run(what, func(t *testing.T) {
			l, n, old := newLocal(100, 1<<20), name{"k", Text("a")}, entry{value: 1, expires: time.Hour}
			gen := l.generation(n)
			l.put(n, gen, old)
			invalidate(l, n)
			if _, ok := l.get(n, 0); ok {
				t.Error("still there")
			}
			if l.put(n, gen, old) {
				t.Error("stored under the generation from before")
			}
			if !l.put(n, l.generation(n), old) {
				t.Error("refused under the current generation")
			}
		})
	}
}

func TestLocalEntriesExpire(t *testing.T) {
	l, n := newLocal(100, 1<<20), name{"k", Text("a")}
	l.put(n, l.generation(n), entry{value: 1, expires: time.Minute})
	if _, ok := l.get(n, time.Minute-1); !ok {
		t.Error("gone too early")
	}
	if _, ok := l.get(n, time.Minute); ok {
		t.Error("served at its end")
	}
}

func TestSizeOfCountsWhatAValueKeepsAlive(t *testing.T) {
	type value struct {
		Name string
		Meta map[string]any
		At   time.Time
		Next *value
	}
	small := sizeOf(value{At: time.Now()})
	large := sizeOf(&value{Name: string(make([]byte, 1000)), Meta: map[string]any{"k": make([]byte, 500)}, Next: &value{Name: "four"}})
	if grown := large - small; grown < 1500 || grown > 2000 {
		t.Errorf("1,500 bytes behind pointers add %d", grown)
	}
}

func TestALeaseEndsWithEitherClock(t *testing.T) {
	var l lease
	start := clock()
	l.extend(start, time.Second)
	at := func(mono, wall time.Duration) instant { return instant{start.mono + mono, start.wall + int64(wall)} }
	for _, c := range []struct {
		mono, wall time.Duration
		want       bool
	}{{0, 0, true}, {999 * time.Millisecond, 999 * time.Millisecond, true}, {time.Second, 0, false}, {0, time.Hour, false}} {
		if l.valid(at(c.mono, c.wall)) != c.want {
			t.Errorf("after %s, by the wall clock %s: valid = %v", c.mono, c.wall, !c.want)
		}
	}
	l.revoke()
	if l.valid(start) {
		t.Error("valid after it was revoked")
	}
}
