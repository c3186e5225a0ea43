package sessions

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// clockGoodFor is how long a reading of the database's clock is extrapolated by the local one, whose rate is as good.
const clockGoodFor = 10 * time.Second

// databaseClock tells the time of the database's clock, by which sessions expire, without asking for it each time. It is
// ahead by a round trip at most, and never behind: nothing that has expired seems to be alive.
type databaseClock struct {
	db     *db.DB
	last   atomic.Pointer[reading]
	asking atomic.Bool
}

// A reading is the database's time, and the local time just before it was asked for.
type reading struct{ local, database time.Time }

// age counts by the monotonic clock and by the wall clock, which has gone on where a virtual machine was suspended.
func (r *reading) age() time.Duration {
	now := time.Now()
	return max(now.Sub(r.local), now.Round(0).Sub(r.local.Round(0)))
}

// now returns the database's time. Only the first call waits for an answer; errors are the database's.
func (c *databaseClock) now(ctx context.Context) (time.Time, error) {
	r := c.last.Load()
	if r == nil {
		var err error
		if r, err = c.ask(ctx); err != nil {
			return time.Time{}, err
		}
	}
	age := r.age()
	if age > clockGoodFor && c.asking.CompareAndSwap(false, true) {
		go func() { //nolint:gosec // see below
			defer c.asking.Store(false)
			// Not of ctx, which may carry a transaction that ends first.
			ctx, cancel := context.WithTimeout(context.Background(), clockGoodFor)
			defer cancel()
			_, _ = c.ask(ctx) // without an answer the last one is as good as before; sessions need the database anyway
		}()
	}
	return r.database.Add(age), nil
}

func (c *databaseClock) ask(ctx context.Context) (*reading, error) {
	r := &reading{local: time.Now()}
	err := c.db.Querier(ctx).QueryRowContext(ctx, `SELECT clock_timestamp()`).Scan(&r.database)
	if err != nil {
		return nil, db.Translate(err, nil)
	}
	c.last.Store(r)
	return r, nil
}
