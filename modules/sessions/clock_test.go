package sessions

import (
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestDatabaseClock brackets each answer between two of the database's own: it is never behind the first.
func TestDatabaseClock(t *testing.T) {
	d := dbtest.Open(t)
	c := &databaseClock{db: d}
	ask := func() (at time.Time) {
		t.Helper()
		if err := d.SQL().QueryRowContext(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		return at
	}
	for range 100 {
		before := ask()
		now, err := c.now(t.Context())
		wantError(t, "now", err, nil)
		if now.Before(before) {
			t.Fatalf("the clock is %v behind the database", before.Sub(now))
		}
	}
	first := c.last.Load()
	c.last.Store(&reading{local: first.local.Add(-time.Minute), database: first.database.Add(-time.Minute)})
	eventually(t, "another reading", func() bool {
		now, err := c.now(t.Context())
		wantError(t, "now", err, nil)
		return now.After(first.database) && c.last.Load().local.After(first.local)
	})
}
