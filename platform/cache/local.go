package cache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	shards      = 64  // so that cores do not queue for one lock
	generations = 256 // per shard; names that share one only lose a fill now and then
)

// A name is an entity's identity: "kind:id" in the outbox and in Redis, two parts here, so that a hit joins no strings.
type name struct{ kind, id string }

func (n name) String() string { return n.kind + ":" + n.id }

func parseName(key string) name {
	kind, id, _ := strings.Cut(key, ":")
	return name{kind, id}
}

// An entry is one decoded value, shared by all its readers and never changed.
type entry struct {
	value   any  // a T
	missing bool // the entity is known not to exist
	size    int64
	expires time.Duration // on the process clock
}

// local is the in-process tier: a sharded LRU with a bound on entries and on bytes, of all shards together, so that one
// which happens to get more than its share forgets nothing while there is room. What is stored beyond a bound takes the
// place of what was used least recently in its own shard. It knows nothing of leases; whoever reads it has checked one
// first.
type local struct {
	seed                 maphash.Seed
	shards               [shards]shard
	maxEntries, maxBytes int64
	entries, bytes       atomic.Int64 // in use
}

type shard struct {
	mu   sync.Mutex
	lru  *simplelru.LRU[name, entry]
	gens [generations]uint64
	_    [64]byte // a cache line between the locks of neighbours
}

// newLocal returns a tier of that many entries and bytes; of none when entries is 0, for generations alone.
func newLocal(entries int, bytes int64) *local {
	l := &local{seed: maphash.MakeSeed(), maxEntries: int64(entries), maxBytes: bytes}
	if entries == 0 {
		return l
	}
	for i := range l.shards {
		l.shards[i].lru, _ = simplelru.NewLRU(entries+1, func(_ name, e entry) { // fails below 1 only
			l.entries.Add(-1)
			l.bytes.Add(-e.size)
		})
	}
	return l
}

func (l *local) shard(n name) (s *shard, slot uint64) {
	h := maphash.String(l.seed, n.id)
	return &l.shards[h%shards], h / shards % generations
}

// get returns the live entry of that name.
func (l *local) get(n name, now time.Duration) (entry, bool) {
	s, _ := l.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lru == nil {
		return entry{}, false
	}
	e, ok := s.lru.Get(n)
	if ok && now >= e.expires {
		s.lru.Remove(n)
		return entry{}, false
	}
	return e, ok
}

// generation is to be taken before a value is read, and handed to put with it.
func (l *local) generation(n name) uint64 {
	s, slot := l.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gens[slot]
}

// put stores what was read under a generation, unless an invalidation has come since, or it alone would take a shard's
// part of the bytes. Comparing and storing under one lock is what makes it safe: an invalidation comes before both or
// after both.
func (l *local) put(n name, gen uint64, e entry) bool {
	s, slot := l.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gens[slot] != gen || s.lru == nil || e.size > l.maxBytes/shards {
		return false
	}
	s.lru.Remove(n)
	s.lru.Add(n, e)
	l.entries.Add(1)
	l.bytes.Add(e.size)
	for s.lru.Len() > 1 && (l.entries.Load() > l.maxEntries || l.bytes.Load() > l.maxBytes) {
		s.lru.RemoveOldest()
	}
	return true
}

// invalidate forgets a name and refuses the fills under way for it.
func (l *local) invalidate(n name) {
	s, slot := l.shard(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gens[slot]++
	if s.lru != nil {
		s.lru.Remove(n)
	}
}

// flush forgets everything and refuses all fills under way.
func (l *local) flush() {
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for slot := range s.gens {
			s.gens[slot]++
		}
		if s.lru != nil {
			s.lru.Purge()
		}
		s.mu.Unlock()
	}
}

// usage returns the number of entries and their bytes.
func (l *local) usage() (entries int, bytes int64) { return int(l.entries.Load()), l.bytes.Load() }
