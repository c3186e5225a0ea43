package cache

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// touched collects the names of one transaction, so that it pays for one invalidation however many services touch.
type touched struct{ names []name }

// underwayMost bounds the changes by others that a write takes upon itself.
const underwayMost = 1000

// Underway is the key under which Touch knows the entities of a kind that others have changed in transactions whose
// invalidation is still under way. It is for a write that finds its work done already and does not know the entity any
// more: what it then answers must hold as if it had done that itself.
func Underway(kind string) string { return name{kind, everything}.String() }

// Touch says that the transaction of ctx changes these entities (see Entity.Key and Underway). After COMMIT, and before InTx returns,
// they are invalidated everywhere; a transaction that is rolled back costs nothing. It may be called before or after the
// changes. Outside a transaction it invalidates at once.
//
// InTx returns when every instance that might serve the state before has dropped it: after two one-way messages as a
// rule, 0.3 s at most when an instance has stalled, and 1 s at most when Redis cannot be reached while others may still
// reach it. Touch itself never fails because of Redis.
func (c *Cache) Touch(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	names := make([]name, len(keys))
	for i, k := range keys {
		names[i] = parseName(k)
	}
	if !db.InTransaction(ctx) {
		c.invalidate(context.WithoutCancel(ctx), names)
		return nil
	}
	tx := c.db.Querier(ctx)
	known, again := c.touched.LoadOrStore(tx, &touched{})
	t, _ := known.(*touched) // nothing else is stored
	for _, n := range names {
		if !slices.Contains(t.names, n) {
			t.names = append(t.names, n)
		}
	}
	if again {
		return nil
	}
	db.AfterCommit(ctx, func(ctx context.Context) {
		c.touched.Delete(tx)
		c.invalidate(ctx, t.names)
	})
	db.AfterRollback(ctx, func(context.Context) {
		c.touched.Delete(tx) // if it was committed after all, nobody has been told so, and the relay will see it
	})
	return nil
}

// invalidate forgets committed changes everywhere and returns when nobody can read the state before.
func (c *Cache) invalidate(ctx context.Context, names []name) {
	committed := time.Now()
	faults.at("after commit")
	if faults.deleteAfterCommit() {
		c.deleteOnly(ctx, names)
		return
	}
	names, known := c.expand(ctx, names)
	byGroup := c.split(names)
	if len(byGroup) == 1 {
		for g, part := range byGroup {
			c.announce(ctx, c.groups[g], part, committed)
		}
	} else {
		var all sync.WaitGroup
		for g, part := range byGroup {
			all.Go(func() { c.announce(ctx, c.groups[g], part, committed) })
		}
		all.Wait()
	}
	if !known {
		time.Sleep(time.Until(committed.Add(drifted(freshFor))))
	}
	c.metrics.writeWait.Observe(time.Since(committed).Seconds())
}

// expand replaces what Underway stands for by the entities themselves. What is not in the outbox any more has been logged
// by the relay, so waiting for any later entry of the log is waiting for that; "*" itself makes one in every group. It
// reports false where it cannot tell: then nothing helps but to wait until every marker from before has run out.
func (c *Cache) expand(ctx context.Context, names []name) (all []name, known bool) {
	known = true
	for _, n := range names {
		all = append(all, n)
		if n.id != everything {
			continue
		}
		found, err := c.outbox(ctx, n.kind)
		known = known && err == nil && len(found) < underwayMost
		all = append(all, found...)
	}
	return all, known
}

// outbox returns the entities of a kind that the relay has yet to invalidate.
func (c *Cache) outbox(ctx context.Context, kind string) (found []name, err error) {
	ctx, cancel := context.WithTimeout(ctx, sqlTimeout)
	defer cancel()
	rows, err := c.db.Querier(ctx).QueryContext(ctx,
		`SELECT DISTINCT name FROM cache_outbox WHERE starts_with(name, $1) LIMIT $2`, kind+":", underwayMost)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		found = append(found, parseName(key))
	}
	return found, rows.Err()
}

func (c *Cache) split(names []name) map[int][]name {
	byGroup := make(map[int][]name, 1)
	for _, n := range names {
		if n.id == everything {
			for g := range c.groups {
				byGroup[g] = append(byGroup[g], n)
			}
			continue
		}
		g := c.group(n).index
		byGroup[g] = append(byGroup[g], n)
	}
	return byGroup
}

// announce invalidates the names of one group and waits until that holds on every instance. Where Redis confirms it
// under a live marker, those that hold a lease are the ones to wait for, and each lease is over by itself soon. Where it
// does not, the marker itself must have gone; but bounded names wait for no more than the leases that Redis knows of, as
// it is this process alone that may have nothing to believe.
func (c *Cache) announce(ctx context.Context, g *group, names []name, committed time.Time) {
	at, live, holders := c.reach(ctx, g, names)
	for _, n := range names { // now, since Redis could have filled this tier again before it was reached
		c.local.invalidate(n)
	}
	if !live && slices.ContainsFunc(names, c.strict) {
		c.metrics.unconfirmed.Inc()
		c.awaitSilence(ctx, g, at.epoch, committed)
		return
	}
	c.awaitHolders(ctx, g, at, holders)
}

// reach invalidates in Redis. Without Redis, this process is the only one that may serve from memory if it may.
func (c *Cache) reach(ctx context.Context, g *group, names []name) (at position, live bool, holders []holder) {
	if c.shared == nil {
		return g.position(), g.lease.valid(clock()), nil
	}
	if c.shared.breaker(g.index).open.Load() && g.believes(clock()) == nil {
		return position{}, false, nil
	}
	at, live, holders, err := c.shared.invalidate(ctx, g.index, names, "", c.id)
	if err != nil {
		return at, false, nil
	}
	b := g.believes(clock())
	return at, live && b != nil && b.epoch == at.epoch, holders
}

func (c *Cache) strict(n name) bool {
	_, bounded := c.bounded.Load(n.kind)
	return !bounded
}

func (g *group) position() position {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.at
}

// awaitHolders waits for the other instances' acknowledgements, or for the end of the leases that they had when the
// invalidation was logged: a later lease contains it.
func (c *Cache) awaitHolders(ctx context.Context, g *group, at position, holders []holder) {
	others := slices.DeleteFunc(holders, func(h holder) bool { return h.instance == c.id })
	for _, h := range c.acks.wait(g.index, at, others, drifted(leaseFor)) {
		c.shared.drop(ctx, g.index, h)
	}
}

// awaitSilence waits until no marker from before COMMIT can be alive: for its whole life at most, and less where
// PostgreSQL says that none is. That is so if the relay has retired the group's epoch, or if the epoch it names is the
// one that this write's invalidation has just reached without finding a marker; and either has been so for a marker's
// life. The query must come after COMMIT: a relay that resumes later first drains this write's row. In the second case
// leases from before Redis' clock was set forward may outlive the marker, so they are waited for too.
func (c *Cache) awaitSilence(ctx context.Context, g *group, reached string, committed time.Time) {
	until := committed.Add(drifted(freshFor))
	query, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	epoch, age, err := c.recorded(query, g)
	if err == nil && (epoch == "" || epoch == reached) {
		quiet := drifted(freshFor) - age
		if epoch != "" {
			quiet = max(quiet, drifted(leaseFor))
		}
		if at := time.Now().Add(quiet); at.Before(until) {
			until = at
		}
	}
	time.Sleep(time.Until(until))
}

// recorded returns the epoch in which PostgreSQL lets the group have a marker, and since when. Without a row no relay
// has ever run.
func (c *Cache) recorded(ctx context.Context, g *group) (epoch string, age time.Duration, err error) {
	var seconds float64
	row := c.db.Querier(ctx).QueryRowContext(ctx,
		`SELECT epoch, extract(epoch FROM clock_timestamp() - since)::float8 FROM cache_epoch WHERE grp = $1`, g.index)
	err = row.Scan(&epoch, &seconds)
	if errors.Is(err, sql.ErrNoRows) {
		return "", drifted(freshFor), nil
	}
	return epoch, time.Duration(seconds * float64(time.Second)), err
}

// deleteOnly is the cache-aside that everyone writes, for the tests to find wanting.
func (c *Cache) deleteOnly(ctx context.Context, names []name) {
	if c.shared == nil {
		return
	}
	for _, n := range names {
		c.local.invalidate(n)
		g := c.group(n).index
		_ = c.shared.client.Del(ctx, c.shared.entityKey(g, n)).Err()
	}
}
