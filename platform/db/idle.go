package db

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"time"
)

// idleWindow is how long the pool remembers how many connections were in use at once.
const idleWindow = 10 * time.Second

// idleLimit keeps open as many idle connections as were in use at once lately, and never fewer than Config.MaxIdle.
// database/sql closes every connection that comes back while its limit of them are idle: under a load of more than that,
// most statements would open a connection of their own, and PostgreSQL start a process for it.
type idleLimit struct {
	pool  *sql.DB
	floor int64
	peak  atomic.Int64 // since the last decay
	limit atomic.Int64 // in force
	mu    sync.Mutex   // for changes of limit
}

func newIdleLimit(pool *sql.DB, floor int) *idleLimit {
	pool.SetMaxIdleConns(floor)
	i := &idleLimit{pool: pool, floor: int64(floor)}
	i.limit.Store(i.floor)
	return i
}

// used notes that n connections are in use.
func (i *idleLimit) used(n int) {
	used := int64(n)
	for peak := i.peak.Load(); used > peak; peak = i.peak.Load() {
		if i.peak.CompareAndSwap(peak, used) {
			break
		}
	}
	if used > i.limit.Load() {
		i.set(func(limit int64) int64 { return max(limit, used) })
	}
}

// decay lowers the limit to what the time since the last decay needed.
func (i *idleLimit) decay() {
	peak := i.peak.Swap(0)
	i.set(func(int64) int64 { return max(i.floor, peak) })
}

func (i *idleLimit) set(next func(limit int64) int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if limit := next(i.limit.Load()); limit != i.limit.Load() {
		i.limit.Store(limit)
		i.pool.SetMaxIdleConns(int(limit)) // closes the surplus
	}
}

// run decays the limit until ctx ends.
func (i *idleLimit) run(ctx context.Context) {
	ticker := time.NewTicker(idleWindow)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			i.decay()
		}
	}
}
