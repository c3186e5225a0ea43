package cache

import (
	"reflect"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
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
			l.put(&node{name: used, entry: entry{size: 100, expires: time.Hour}}, 0)
			for i := range 20 * entries {
				n := name{"k", Text(strconv.Itoa(i))}
				if !l.put(&node{name: n, entry: entry{size: 100, expires: time.Hour}}, l.generation(n)) {
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
			l, n := newLocal(100, 1<<20), name{"k", Text("a")}
			old := func() *node { return &node{name: n, entry: entry{expires: time.Hour}} }
			gen := l.generation(n)
			l.put(old(), gen)
			invalidate(l, n)
			if _, ok := l.get(n, 0); ok {
				t.Error("still there")
			}
			if l.put(old(), gen) {
				t.Error("stored under the generation from before")
			}
			if !l.put(old(), l.generation(n)) {
				t.Error("refused under the current generation")
			}
		})
	}
}

func TestLocalEntriesExpire(t *testing.T) {
	l, n := newLocal(100, 1<<20), name{"k", Text("a")}
	l.put(&node{name: n, entry: entry{expires: time.Minute}}, l.generation(n))
	if _, ok := l.get(n, time.Minute-1); !ok {
		t.Error("gone too early")
	}
	if _, ok := l.get(n, time.Minute); ok {
		t.Error("served at its end")
	}
}

// TestNodesHoldWhatTheyWereGiven: sharing memory changes neither the ID nor the value, nor where they came from.
func TestNodesHoldWhatTheyWereGiven(t *testing.T) {
	type value struct {
		Name, Empty string
		N           int
		hidden      string
		Raw         []byte
		Last        string
	}
	given := value{"Ada", "", 7, "as it was", []byte("raw"), "ü"}
	id := UUID(uuid.New())
	n := newNode(name{"k", id}, given)
	held, ok := n.value.(*value)
	if !ok || !reflect.DeepEqual(*held, given) || n.name != (name{"k", id}) {
		t.Errorf("%v holds %+v", n.name, n.value)
	}
	at := func(text string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(text))) }
	if at(held.Last)-at(n.id.packed) != uintptr(len(n.id.packed)+len("Ada")) {
		t.Error("the strings lie apart")
	}
	if given.Name != "Ada" || at(given.Name) == at(held.Name) {
		t.Error("the value given shares memory with the node's")
	}
	if n := newNode(name{"k", id}, []string{"a"}); n.id != id {
		t.Errorf("%v", n.name)
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
