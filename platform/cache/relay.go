package cache

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

const (
	drainBatch  = 2000                    // outbox rows at once
	renewEvery  = 500 * time.Millisecond  // the leader renews its leadership
	leadFor     = 1500 * time.Millisecond // and loses it after that
	standEvery  = 250 * time.Millisecond  // another instance looks whether there is one to take
	retireAfter = time.Second             // without an answer, a group's epoch is retired
	resignAfter = 2 * time.Second         // without an answer from any group, another instance may try
	sqlTimeout  = time.Second
)

// A target is what the relay keeps coherent: Redis, or this process' memory where there is no Redis.
type target interface {
	// begin starts an epoch that no other server is in: all values of earlier ones are void, and there is no marker.
	begin(ctx context.Context, group int) (epoch string, err error)
	// relay invalidates names; it reports false when the target is not in that epoch any more.
	relay(ctx context.Context, group int, epoch string, names []name) (bool, error)
	// mark says that everything committed before t0, on the target's clock in ms, has been invalidated. With t0 = 0 it
	// only asks for the clock. It returns the epoch that the target is in.
	mark(ctx context.Context, group int, epoch string, t0 int64) (current string, now int64, err error)
}

// relay drains the outbox and renews the marker, on the one instance that leads. Leadership is a row with a fencing
// number in PostgreSQL; each drain reads that number in its own snapshot, and each statement that changes something is
// conditional on it, so that an instance that was frozen or cut off while another took over does no harm.
//
// Two rules keep a marker honest. It counts from a time before the drain that it vouches for. And a group has at most
// one epoch in which a marker may live, the one that cache_epoch names: before the first marker of another, the relay
// records that epoch and waits until markers of the one before must have run out.
type relay struct {
	c      *Cache
	to     target
	conn   *db.Conn // its own, so that a busy pool does not end the marker
	fence  int64    // 0 while another instance leads
	groups []relayGroup

	nextBeat, nextRenew, nextStand time.Time

	others    int       // live instances beside this one
	sharing   int       // those of them that have Redis
	failing   time.Time // since when no group has answered
	stumbling bool      // the last step failed
}

// relayGroup is what the leader knows of a group.
type relayGroup struct {
	epoch    string    // as recorded in PostgreSQL; empty while retired
	unused   bool      // it has never had an epoch, so there is no marker to outwait
	markFrom time.Time // no marker before this
	t0       int64     // a reading of the target's clock from before the next drain
	slow     bool      // the target has taken longer to answer than a request would wait
	failing  time.Time // since when the target has not answered, or slowly; zero while it does
}

func newRelay(c *Cache) *relay {
	r := &relay{c: c, to: &memory{c: c}, groups: make([]relayGroup, len(c.groups))}
	if c.shared != nil {
		r.to = c.shared
	}
	return r
}

// run leads, or waits to lead, until ctx ends; then it makes room for another instance.
func (r *relay) run(ctx context.Context) error {
	defer r.leave(context.WithoutCancel(ctx))
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		more, err := r.step(ctx)
		if err != nil && ctx.Err() == nil {
			r.stumble(err)
		}
		r.stumbling = err != nil
		if more && err == nil && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// stumble forgets what this instance believes of PostgreSQL's side: a statement that failed may have been executed, or
// may still be. Standing again takes a new fence, which ends that, and reads what holds.
func (r *relay) stumble(err error) {
	r.c.metrics.relayFailures.Inc()
	level := slog.LevelWarn
	if r.stumbling { // an outage is one line, not 25 a second
		level = slog.LevelDebug
	}
	r.c.log.Log(context.Background(), level, "cache: the relay stumbled", "error", err)
	r.disconnect()
	r.fence, r.nextStand = 0, time.Time{}
	r.c.metrics.leading.Set(0)
}

// step does what is due, and reports whether the outbox holds more than one batch. Any failure of PostgreSQL ends it;
// the marker then runs out unless a later step succeeds.
func (r *relay) step(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, sqlTimeout)
	defer cancel()
	if r.conn == nil {
		if r.conn, err = r.c.db.Conn(ctx); err != nil {
			return false, err
		}
	}
	if err := due(&r.nextBeat, beatEvery, func() error { return r.beat(ctx) }); err != nil {
		return false, err
	}
	if r.c.shared == nil && r.sharing > 0 { // who cannot reach their Redis must not relay for them
		if r.fence != 0 {
			return false, r.resign(ctx)
		}
		return false, nil
	}
	if r.fence == 0 {
		return false, due(&r.nextStand, standEvery, func() error { return r.stand(ctx) })
	}
	if err := due(&r.nextRenew, renewEvery, func() error { return r.renew(ctx) }); err != nil {
		return false, err
	}
	return r.drain(ctx)
}

// due runs f if its time has come, and sets the next.
func due(next *time.Time, every time.Duration, f func() error) error {
	now := time.Now()
	if now.Before(*next) {
		return nil
	}
	*next = now.Add(every)
	return f()
}

// stand takes the leadership if it is free or its own, and with it what the groups' epochs were. Groups that this instance does not
// have belong to a deployment of another kind; they are retired, so that it cannot resume them.
func (r *relay) stand(ctx context.Context) error {
	err := r.conn.QueryRowContext(ctx, `UPDATE cache_relay
		SET fence = fence + 1, holder = $1, expires_at = now() + $2 * interval '1 second'
		WHERE expires_at < now() OR holder = $1 RETURNING fence`, r.c.id, leadFor.Seconds()).Scan(&r.fence)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	r.failing = time.Time{}
	r.groups = slices.Repeat([]relayGroup{{unused: true}}, len(r.c.groups))
	r.c.metrics.leading.Set(1)
	r.c.log.InfoContext(ctx, "cache: this instance relays", "fence", r.fence)
	if _, err := r.fenced(ctx, `UPDATE cache_epoch SET epoch = '', since = clock_timestamp() FROM leader
		WHERE grp >= $2 AND epoch <> ''`, len(r.groups)); err != nil {
		return err
	}
	rows, err := r.conn.QueryContext(ctx,
		`SELECT grp, epoch, extract(epoch FROM clock_timestamp() - since)::float8 FROM cache_epoch WHERE grp < $1`, len(r.groups))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var g int
		var epoch string
		var age float64
		if err := rows.Scan(&g, &epoch, &age); err != nil {
			return err
		}
		// A predecessor may just have recorded it, and have been waiting for the markers before it to run out.
		wait := drifted(freshFor) - time.Duration(age*float64(time.Second))
		r.groups[g] = relayGroup{epoch: epoch, markFrom: time.Now().Add(wait)}
	}
	return rows.Err()
}

func (r *relay) renew(ctx context.Context) error {
	n, err := r.fenced(ctx, `UPDATE cache_relay SET expires_at = now() + $2 * interval '1 second' FROM leader
		WHERE cache_relay.fence = leader.fence`, leadFor.Seconds())
	if err == nil && n == 0 {
		r.lose(ctx)
	}
	return err
}

// fenced runs a statement that reads from "leader", which is one row as long as this instance leads. The row is locked
// against a change of leadership until the statement is done.
func (r *relay) fenced(ctx context.Context, statement string, args ...any) (int64, error) {
	result, err := r.conn.ExecContext(ctx,
		`WITH leader AS (SELECT fence FROM cache_relay WHERE fence = $1 FOR NO KEY UPDATE) `+statement,
		append([]any{r.fence}, args...)...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (r *relay) lose(ctx context.Context) {
	r.c.log.InfoContext(ctx, "cache: this instance relays no longer", "fence", r.fence)
	r.fence = 0
	r.c.metrics.leading.Set(0)
	if r.c.shared == nil {
		r.c.groups[0].lease.revoke()
	}
}

// drain invalidates a batch of what the outbox holds and, if that was all, renews the markers.
func (r *relay) drain(ctx context.Context) (more bool, err error) {
	rows, err := r.read(ctx)
	if err != nil || r.fence == 0 {
		return false, err
	}
	faults.at("relay drained")
	more = len(rows) == drainBatch
	return more, r.distribute(ctx, rows, !more)
}

type outboxRow struct {
	id   int64
	name name
}

// read returns the oldest rows of the outbox and, from the same snapshot, who leads.
func (r *relay) read(ctx context.Context) ([]outboxRow, error) {
	rows, err := r.conn.QueryContext(ctx, `SELECT r.fence, o.id, o.name, extract(epoch FROM clock_timestamp() - o.noted_at)::float8
		FROM cache_relay r LEFT JOIN (SELECT id, name, noted_at FROM cache_outbox ORDER BY id LIMIT $1) o ON true`, drainBatch)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []outboxRow
	for rows.Next() {
		var fence int64
		var id sql.NullInt64
		var key sql.NullString
		var age sql.NullFloat64
		if err := rows.Scan(&fence, &id, &key, &age); err != nil {
			return nil, err
		}
		if fence != r.fence {
			r.lose(ctx)
			return nil, nil
		}
		if id.Valid {
			found = append(found, outboxRow{id.Int64, parseName(key.String)})
			r.c.metrics.relayLag.Observe(age.Float64)
		}
	}
	return found, rows.Err()
}

// distribute hands each group its names, and deletes the rows of those that have them or do not need them any more.
// Only a drain to the end vouches for a marker.
func (r *relay) distribute(ctx context.Context, rows []outboxRow, complete bool) error {
	names := make([][]name, len(r.groups))
	whole := false
	for _, row := range rows {
		g := r.c.group(row.name).index
		names[g] = append(names[g], row.name)
		whole = whole || row.name.id == everything
	}
	errs := make([]error, len(r.groups))
	var all sync.WaitGroup
	for g := range r.groups {
		all.Go(func() { errs[g] = r.tend(ctx, g, names[g], whole, complete) })
	}
	all.Wait()
	var done []int64
	for _, row := range rows {
		if errs[r.c.group(row.name).index] == nil {
			done = append(done, row.id)
		}
	}
	if err := r.forget(ctx, done); err != nil {
		return err
	}
	return r.endure(ctx)
}

// forget deletes rows by the ids that were read: one with a lower id may still be uncommitted.
func (r *relay) forget(ctx context.Context, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	faults.at("before outbox delete")
	r.c.metrics.relayed.Add(float64(len(ids)))
	_, err := r.fenced(ctx, `DELETE FROM cache_outbox USING leader WHERE id = ANY($2)`, ids)
	return err
}

// endure makes room for another instance when none of the groups has answered this one for long.
func (r *relay) endure(ctx context.Context) error {
	for _, g := range r.groups {
		if g.failing.IsZero() {
			r.failing = time.Time{}
			return nil
		}
	}
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	if r.others == 0 || time.Since(r.failing) < resignAfter {
		return nil
	}
	r.nextStand = time.Now().Add(resignAfter)
	return r.resign(ctx)
}

// resign gives the leadership up.
func (r *relay) resign(ctx context.Context) error {
	_, err := r.fenced(ctx, `UPDATE cache_relay SET expires_at = now() FROM leader WHERE cache_relay.fence = leader.fence`)
	r.lose(ctx)
	return err
}

// tend relays to one group. When the group cannot be reached in time for a while, or turns out to be in another epoch, its
// epoch is retired: then rows need not be relayed, since whatever is cached is void before the group is used again. An error
// means that the rows must be kept.
func (r *relay) tend(ctx context.Context, g int, names []name, everything, complete bool) error {
	group := &r.groups[g]
	if group.epoch == "" {
		if r.usable() {
			return r.resume(ctx, g)
		}
		return nil
	}
	ok, err := !everything && r.usable(), error(nil)
	if ok && len(names) > 0 {
		ok, err = r.to.relay(ctx, g, group.epoch, names)
	}
	if ok && err == nil && complete {
		ok, err = r.mark(ctx, g)
	}
	if err == nil && !group.slow {
		group.failing = time.Time{}
	} else if group.failing.IsZero() {
		group.failing = time.Now()
	}
	bearable := group.failing.IsZero() || time.Since(group.failing) < retireAfter
	if bearable && (ok || err != nil) {
		return err
	}
	return r.retire(ctx, g)
}

// usable reports whether anything may be cached: memory that others do not share is of no use beside them.
func (r *relay) usable() bool { return r.c.shared != nil || r.others == 0 }

// slow reports whether Redis has taken longer than a request would wait: then it is of less use than none.
func (r *relay) slow(asked time.Time) bool {
	return r.c.shared != nil && time.Since(asked) > r.c.shared.timeout
}

// mark renews the group's marker from before the drain, once it may have one. It reports false for another epoch.
func (r *relay) mark(ctx context.Context, g int) (bool, error) {
	group := &r.groups[g]
	t0 := group.t0
	if time.Now().Before(group.markFrom) {
		t0 = 0
	}
	faults.at("before mark")
	asked := time.Now()
	current, now, err := r.to.mark(ctx, g, group.epoch, t0)
	if err != nil {
		return false, err
	}
	group.t0, group.slow = now, r.slow(asked)
	return current == group.epoch, nil
}

// retire records that the group has no epoch.
func (r *relay) retire(ctx context.Context, g int) error {
	r.c.log.WarnContext(ctx, "cache: out of use", "group", g)
	return r.record(ctx, g, "")
}

// resume begins an epoch in which nothing is cached, and records it. The target's absence is no error: nothing is lost.
func (r *relay) resume(ctx context.Context, g int) error {
	asked := time.Now()
	epoch, err := r.to.begin(ctx, g)
	if err != nil || r.slow(asked) {
		return nil //nolint:nilerr // the group stays retired
	}
	wait := drifted(freshFor)
	if r.groups[g].unused {
		wait = 0
	}
	if err := r.record(ctx, g, epoch); err != nil {
		return err
	}
	r.groups[g].markFrom = time.Now().Add(wait)
	r.groups[g].failing = time.Time{}
	r.c.log.InfoContext(ctx, "cache: in use", "group", g, "after", wait)
	return nil
}

// record names the group's epoch in PostgreSQL.
func (r *relay) record(ctx context.Context, g int, epoch string) error {
	n, err := r.fenced(ctx, `INSERT INTO cache_epoch (grp, epoch) SELECT $2::smallint, $3::text FROM leader
		ON CONFLICT (grp) DO UPDATE SET epoch = excluded.epoch, since = clock_timestamp()`, g, epoch)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("cache relay: fence %d has been passed", r.fence)
	}
	r.groups[g] = relayGroup{epoch: epoch, failing: r.groups[g].failing}
	return nil
}

func (r *relay) disconnect() {
	if r.conn != nil {
		_ = r.conn.Close()
		r.conn = nil
	}
}

// leave hands the leadership over at once and signs this instance off.
func (r *relay) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sqlTimeout)
	defer cancel()
	if r.conn != nil {
		if r.fence != 0 {
			_ = r.resign(ctx)
		}
		_, _ = r.conn.ExecContext(ctx, `DELETE FROM cache_instance WHERE id = $1`, r.c.id)
	}
	r.disconnect()
}

// memory is the target where there is no Redis: the marker is this process' own lease.
type memory struct {
	c     *Cache
	asked instant // what the clock said when it was last asked for; both of it, since the process may be suspended
}

func (m *memory) begin(_ context.Context, g int) (string, error) {
	epoch := rand.Text()
	group := m.c.groups[g]
	group.lease.revoke()
	m.c.local.flush()
	group.mu.Lock()
	defer group.mu.Unlock()
	group.at = position{epoch: epoch}
	return epoch, nil
}

func (m *memory) relay(_ context.Context, g int, epoch string, names []name) (bool, error) {
	for _, n := range names {
		m.c.local.invalidate(n)
	}
	return m.c.groups[g].position().epoch == epoch, nil
}

func (m *memory) mark(_ context.Context, g int, epoch string, t0 int64) (string, int64, error) {
	group, from := m.c.groups[g], m.asked
	current := group.position().epoch
	if t0 > 0 && t0 == from.mono.Milliseconds() && current == epoch {
		group.lease.extend(from, freshFor)
	}
	m.asked = clock()
	return current, m.asked.mono.Milliseconds(), nil
}
