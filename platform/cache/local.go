package cache

import (
	"hash/maphash"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shards      = 64  // so that cores do not queue for one lock
	generations = 256 // per shard; names that share one only lose a fill now and then
)

// An entry is one decoded value, shared by all its readers and never changed.
type entry struct {
	value   any // a *T; nil: the entity is known not to exist
	size    int64
	expires time.Duration // on the process clock
}

// local is the in-process tier: a sharded LRU with a bound on entries and on bytes, of all shards together, so that one
// which happens to get more than its share forgets nothing while there is room. What is stored beyond a bound takes the
// place of what was used least recently in its own shard. It knows nothing of leases; whoever reads it has checked one
// first.
//
// The LRU is written out, as a list through the map's values, because it is what a hit costs and what memory holds a
// hundred thousand times: half of what the usual packages take for an entry (docs/performance.md).
type local struct {
	seed                 maphash.Seed
	shards               [shards]shard
	maxEntries, maxBytes int64
	entries, bytes       atomic.Int64 // in use
}

type shard struct {
	mu    sync.Mutex
	nodes map[uint64]*node // by the hash of the name; of two names with the same, which never meet, the later one stays
	ring  node             // its next is the node that was used last, its prev the one to be forgotten first
	gens  [generations]uint64
	_     [64]byte // a cache line between the locks of neighbours
}

type node struct {
	name
	entry
	prev, next *node
}

// kept is a node and its value in one piece of memory. What the collector has to look at a hundred thousand times is what
// it takes most of its time for.
type kept[T any] struct {
	node
	of T
}

// newNode returns a node with a copy of a value.
func newNode[T any](n name, value T) *node {
	k := &kept[T]{node: node{name: n}, of: value}
	k.value = &k.of
	gather(&k.id, reflect.ValueOf(&k.of).Elem())
	return &k.node
}

// gather has an ID and the strings of a struct share one piece of memory.
func gather(id *ID, v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	var texts []reflect.Value
	parts := []string{id.packed}
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && f.CanSet() {
			texts, parts = append(texts, f), append(parts, f.String())
		}
	}
	all := strings.Join(parts, "")
	id.packed, all = all[:len(id.packed)], all[len(id.packed):]
	for _, f := range texts {
		n := f.Len()
		f.SetString(all[:n])
		all = all[n:]
	}
}

// newLocal returns a tier of that many entries and bytes; of none when entries is 0, for generations alone.
func newLocal(entries int, bytes int64) *local {
	l := &local{seed: maphash.MakeSeed(), maxEntries: int64(entries), maxBytes: bytes}
	for i := range l.shards {
		l.shards[i].clear()
	}
	return l
}

// locate returns a name's place: its shard, its hash in there, and the slot of its generation.
func (l *local) locate(n name) (s *shard, hash, slot uint64) {
	hash = maphash.String(l.seed, n.kind) ^ maphash.String(l.seed, n.id.packed)
	return &l.shards[hash%shards], hash, hash / shards % generations
}

// get returns the live entry of that name.
func (l *local) get(n name, now time.Duration) (entry, bool) {
	s, hash, _ := l.locate(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.nodes[hash]
	if found == nil || found.name != n {
		return entry{}, false
	}
	if now >= found.expires {
		l.remove(s, hash)
		return entry{}, false
	}
	if s.ring.next != found {
		found.unlink()
		s.push(found)
	}
	return found.entry, true
}

// generation is to be taken before a value is read, and handed to put with it.
func (l *local) generation(n name) uint64 {
	s, _, slot := l.locate(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gens[slot]
}

// put stores what was read under a generation, unless an invalidation has come since, or it alone would take a shard's
// part of the bytes. Comparing and storing under one lock is what makes it safe: an invalidation comes before both or
// after both.
func (l *local) put(added *node, gen uint64) bool {
	s, hash, slot := l.locate(added.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gens[slot] != gen || l.maxEntries == 0 || added.size > l.maxBytes/shards {
		return false
	}
	l.remove(s, hash)
	s.nodes[hash] = added
	s.push(added)
	l.entries.Add(1)
	l.bytes.Add(added.size)
	for s.ring.prev != added && (l.entries.Load() > l.maxEntries || l.bytes.Load() > l.maxBytes) {
		_, oldest, _ := l.locate(s.ring.prev.name)
		l.remove(s, oldest)
	}
	return true
}

// invalidate forgets a name and refuses the fills under way for it.
func (l *local) invalidate(n name) {
	s, hash, slot := l.locate(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gens[slot]++
	l.remove(s, hash)
}

// flush forgets everything and refuses all fills under way.
func (l *local) flush() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for slot := range s.gens {
			s.gens[slot]++
		}
		for n := s.ring.next; n != &s.ring; n = n.next {
			l.entries.Add(-1)
			l.bytes.Add(-n.size)
		}
		s.clear()
		s.mu.Unlock()
	}
}

// usage returns the number of entries and their bytes.
func (l *local) usage() (entries int, bytes int64) { return int(l.entries.Load()), l.bytes.Load() }

// remove forgets what has this hash, if anything.
func (l *local) remove(s *shard, hash uint64) {
	found := s.nodes[hash]
	if found == nil {
		return
	}
	delete(s.nodes, hash)
	found.unlink()
	l.entries.Add(-1)
	l.bytes.Add(-found.size)
}

func (s *shard) clear() {
	s.nodes = map[uint64]*node{}
	s.ring.prev, s.ring.next = &s.ring, &s.ring
}

// push makes n the node that was used last.
func (s *shard) push(n *node) {
	n.prev, n.next = &s.ring, s.ring.next
	n.prev.next, n.next.prev = n, n
}

func (n *node) unlink() { n.prev.next, n.next.prev = n.next, n.prev }
