package cache

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A group is the set of keys that share a slot, an epoch, an invalidation log and a lease. Only a cluster has several.
type group struct {
	index  int
	lease  lease
	belief atomic.Pointer[belief] // in what Redis holds
	marker measure                // of follow alone
	kick   chan struct{}          // asks follow not to wait for its tick

	mu     sync.Mutex
	at     position // what has been applied
	seq    uint64
	parked []logged // announced ahead of what has been applied
}

func newGroup(index int) *group { return &group{index: index, kick: make(chan struct{}, 1)} }

func (g *group) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// A belief is until when what Redis holds in an epoch may be believed, while the reign lasts in which it began.
type belief struct {
	epoch, reign string
	until        lease
}

// believes returns what may be believed at this moment; nil for nothing.
func (g *group) believes(now instant) *belief {
	if b := g.belief.Load(); b != nil && b.epoch != "" && b.until.valid(now) {
		return b
	}
	return nil
}

// follow renews the lease of one group and the belief in its marker for as long as ctx lives. It asks for no lease where
// there is no in-process tier, nor after Redis has been slow: writers elsewhere would wait for what it has to say.
func (c *Cache) follow(ctx context.Context, g *group) error {
	every, prompt := syncEvery, true
	if c.cfg.Entries == 0 {
		every = 2 * syncEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			g.lease.revoke()
			return nil
		case <-tick.C:
		case <-g.kick:
		}
		prompt = c.sync(ctx, g, prompt && c.cfg.Entries > 0)
	}
}

// sync reports whether Redis answered in the time that a request has.
func (c *Cache) sync(ctx context.Context, g *group, leases bool) (prompt bool) {
	g.mu.Lock()
	from := g.at
	g.seq++
	seq := g.seq
	g.mu.Unlock()

	faults.at("before sync")
	start := clock()
	got, err := c.shared.sync(ctx, g.index, from, seq, leases)
	prompt = clock().mono-start.mono <= c.shared.timeout
	c.shared.breaker(g.index).probed(err == nil, prompt)
	if err != nil {
		c.metrics.syncFailures.Inc()
		return false // the lease runs out
	}
	faults.at("after sync")
	end := g.marker.end(got.at.epoch, start.mono, got.marker)
	if c.cfg.Entries > 0 {
		lasts := time.Duration(0)
		if leases {
			lasts = min(end-start.mono, leaseFor)
		}
		c.adopt(g, from, got, start, lasts)
	}
	b := &belief{epoch: got.at.epoch, reign: got.reign}
	b.until.extend(start, end-start.mono)
	if before := g.belief.Swap(b); before == nil || before.epoch != b.epoch {
		c.resubscribe()
	}
	return prompt
}

// adopt applies what a sync brought, and only then extends the lease, counted from before the round trip. A new epoch, a gap in
// the log or a position that went back mean that invalidations may have been missed: everything is forgotten.
func (c *Cache) adopt(g *group, from position, got granted, start instant, lasts time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	continuous := got.at.epoch == g.at.epoch && got.at.pos-from.pos == int64(len(got.entries))
	for i, e := range got.entries {
		continuous = continuous && e.pos == from.pos+int64(i)+1
	}
	if continuous {
		for _, e := range got.entries {
			if e.pos > g.at.pos {
				c.apply(g, e)
			}
		}
	} else {
		g.lease.revoke()
		c.local.flush()
		c.metrics.flushes.Inc()
		g.at = got.at
	}
	c.releaseParked(g)
	if lasts > 0 {
		g.lease.extend(start, lasts)
	}
}

// apply forgets the names of the next entry and owes its origin the acknowledgement. g.mu is held.
func (c *Cache) apply(g *group, e logged) {
	if e.origin != c.id { // an origin forgets them by itself, before it answers its caller
		for _, n := range e.names {
			c.local.invalidate(n)
		}
	}
	g.at.pos = e.pos
	c.metrics.applied.Inc()
	c.owe(g, e.origin)
}

func (c *Cache) owe(g *group, origin string) {
	if origin != "" && origin != c.id {
		c.acks.owe(origin, g.index, g.at)
	}
}

// releaseParked acknowledges announcements that a sync has caught up with. g.mu is held.
func (c *Cache) releaseParked(g *group) {
	for _, e := range g.parked {
		if e.pos <= g.at.pos {
			c.owe(g, e.origin)
		}
	}
	g.parked = g.parked[:0]
}

// listen applies announcements as they come. They only save time: each is in the log too, and may get lost here.
func (c *Cache) listen(ctx context.Context) error {
	if c.cfg.Entries == 0 {
		return c.hear(ctx, c.shared.acks(c.id))
	}
	return c.hear(ctx, c.shared.invalidations(), c.shared.acks(c.id))
}

// hear subscribes anew in each epoch: a connection to a former master may stay open, and silent.
func (c *Cache) hear(ctx context.Context, channels ...string) error {
	for ctx.Err() == nil {
		sub := c.shared.control.Subscribe(ctx, channels...)
		c.obey(ctx, sub.Channel(redis.WithChannelSize(4096), redis.WithChannelHealthCheckInterval(time.Second)))
		_ = sub.Close() // there is another, or none is wanted
	}
	return nil
}

// resubscribe ends the present subscription.
func (c *Cache) resubscribe() {
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

// obey does what the messages say for as long as they come from where they should.
func (c *Cache) obey(ctx context.Context, messages <-chan *redis.Message) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.moved:
			return
		case m, ok := <-messages:
			if !ok {
				return
			}
			faults.at("message")
			if m.Channel == c.shared.acks(c.id) {
				c.acks.arrive(m.Payload)
			} else {
				c.announced(m.Payload)
			}
		}
	}
}

// announced applies "epoch position group origin names" if it is the very next entry, and else has it fetched.
func (c *Cache) announced(payload string) {
	parts := strings.SplitN(payload, " ", 5)
	if len(parts) != 5 {
		return
	}
	pos, perr := strconv.ParseInt(parts[1], 10, 64)
	index, gerr := strconv.Atoi(parts[2])
	if perr != nil || gerr != nil || index < 0 || index >= len(c.groups) {
		c.log.Warn("cache: unreadable announcement", slog.Int("bytes", len(payload)))
		return
	}
	g, e := c.groups[index], logged{pos: pos, origin: parts[3], names: splitNames(parts[4])}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case parts[0] == g.at.epoch && e.pos == g.at.pos+1:
		c.apply(g, e)
	case parts[0] == g.at.epoch && e.pos <= g.at.pos:
		c.owe(g, e.origin)
	default:
		if parts[0] == g.at.epoch && len(g.parked) < logLength { // its writer gets over one that is not
			g.parked = append(g.parked, e)
		}
		g.wake()
	}
}
