package web

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// MemoryLimiter counts in this process alone, with the generic cell rate algorithm (GCRA). It remembers a bounded number
// of keys, the most recently used.
type MemoryLimiter struct {
	now func() time.Time
	mu  sync.Mutex
	due *simplelru.LRU[string, time.Time] // when the key will have used up nothing
}

// NewMemoryLimiter returns a limiter that remembers at most size keys.
func NewMemoryLimiter(size int) *MemoryLimiter {
	due, err := simplelru.NewLRU[string, time.Time](size, nil)
	if err != nil {
		panic(err) // size is a positive constant
	}
	return &MemoryLimiter{now: time.Now, due: due}
}

// Allow implements Limiter; it never fails.
func (l *MemoryLimiter) Allow(_ context.Context, key string, limit Limit) (Decision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	due, ok := l.due.Get(key)
	if !ok || due.Before(now) {
		due = now
	}
	each := limit.Per / time.Duration(limit.Requests)
	next := due.Add(each)
	if wait := next.Sub(now) - limit.Per; wait > 0 {
		return Decision{Limit: limit, RetryAfter: wait, ResetAfter: due.Sub(now)}, nil
	}
	l.due.Add(key, next)
	used := next.Sub(now)
	return Decision{Allowed: true, Limit: limit, Remaining: int((limit.Per - used) / each), ResetAfter: used}, nil
}
