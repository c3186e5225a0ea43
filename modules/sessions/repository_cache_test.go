package sessions

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/cache"
	"github.com/strata-accounts/strata/platform/cache/cachetest"
	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/rollout"
)

// newCache runs a cache until the test ends. The function that it returns counts the reads answered from memory.
func newCache(t testing.TB, d *db.DB, options ...func(*cache.Config)) (*cache.Cache, func() int) {
	t.Helper()
	c, metrics := cachetest.Start(t, d, func(cfg *cache.Config) {
		for _, option := range options {
			option(cfg)
		}
	})
	return c, func() int { return hits(t, metrics) }
}

func hits(t testing.TB, metrics *prometheus.Registry) int {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if family.GetName() == "strata_cache_reads_total" && (label.GetValue() == "process" || label.GetValue() == "redis") {
					total += m.GetCounter().GetValue()
				}
			}
		}
	}
	return int(total)
}

// eventually waits, up to a generous limit, for what happens a little later.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for start := time.Now(); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("%s: not in two minutes", what)
		}
	}
}

// userKey is what the users module calls its entities in the cache.
func userKey(id uuid.UUID) string { return "user:" + id.String() }

// instance is one process' repository, at the stage cached.
type instance struct {
	*SwitchRepository
	hits func() int
}

func newInstance(t testing.TB, d *db.DB, options ...func(*cache.Config)) instance {
	t.Helper()
	postgres := NewPostgresRepository(d)
	entries, count := newCache(t, d, options...)
	return instance{NewSwitchRepository(&rollout.Ladder[Repository]{
		DB: d, Stage: rollout.Cached, Cache: entries,
		Direct: NewDirectRepository(d), Repository: postgres, Cached: NewCacheRepository(postgres, entries, userKey),
	}), count}
}

// warm reads a session until it is answered from memory.
func (i instance) warm(t testing.TB, s Session) {
	t.Helper()
	eventually(t, "a read from memory", func() bool {
		before := i.hits()
		got, err := i.ByToken(t.Context(), s.TokenHash)
		wantError(t, "warm", err, nil)
		return i.hits() > before && got.ID == s.ID
	})
}

// deployments runs the test for each of those in which a session can be cached.
func deployments(t *testing.T, test func(t *testing.T, d *db.DB, configure func(*cache.Config))) {
	t.Helper()
	for name, configure := range cachetest.Deployments(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, openDB(t), configure)
		})
	}
}

// TestCachedSessionExpires: a session in the cache is refused as soon as the database's clock says so.
func TestCachedSessionExpires(t *testing.T) {
	deployments(t, func(t *testing.T, d *db.DB, configure func(*cache.Config)) {
		i, direct := newInstance(t, d, configure), NewDirectRepository(d)
		n := newSession(ids.New())
		n.Idle = 2 * time.Second
		s, err := i.Create(t.Context(), n)
		wantError(t, "create", err, nil)
		i.warm(t, s)
		eventually(t, "expiry", func() bool {
			_, err := direct.ByToken(t.Context(), s.TokenHash)
			return errors.Is(err, ErrNotFound)
		})
		_, err = i.ByToken(t.Context(), s.TokenHash)
		wantError(t, "an expired session in the cache", err, ErrNotFound)
	})
}

// TestCachedSessionLivesOn: a session that was used since it was cached outlives its cached deadline.
func TestCachedSessionLivesOn(t *testing.T) {
	deployments(t, func(t *testing.T, d *db.DB, configure func(*cache.Config)) {
		i := newInstance(t, d, configure)
		n := newSession(ids.New())
		n.Idle = 2 * time.Second
		s, err := i.Create(t.Context(), n)
		wantError(t, "create", err, nil)
		i.warm(t, s)
		written, err := i.Seen(t.Context(), []Use{{ID: s.ID}}, SeenPolicy{Idle: day})
		wantError(t, "seen", err, nil)
		if written != 1 {
			t.Fatal("the use was not written")
		}
		eventually(t, "the cached deadline", func() bool {
			var passed bool
			err := d.SQL().QueryRowContext(t.Context(), `SELECT clock_timestamp() > $1`, s.IdleExpiresAt).Scan(&passed)
			wantError(t, "clock", err, nil)
			return passed
		})
		_, err = i.ByToken(t.Context(), s.TokenHash)
		wantError(t, "a session that was used", err, nil)
	})
}

// TestEndedEverywhere: when a write has returned, no other instance goes by the session before it.
func TestEndedEverywhere(t *testing.T) {
	d, configure := openDB(t), cachetest.Deployments(t)["redis+process"]
	same := func(c *cache.Config) { configure(c); c.KeyPrefix = "shared" }
	here, there := newInstance(t, d, same), newInstance(t, d, same)
	for range 20 {
		s := mustCreate(t, here, ids.New())
		here.warm(t, s)
		there.warm(t, s)
		_, hash := newToken()
		rotated, err := here.Rotate(t.Context(), s, hash)
		wantError(t, "rotate", err, nil)
		_, err = there.ByToken(t.Context(), s.TokenHash)
		wantError(t, "the old token, elsewhere", err, ErrNotFound)
		there.warm(t, rotated)
		wantError(t, "delete", here.Delete(t.Context(), []Session{rotated}), nil)
		_, err = there.ByToken(t.Context(), rotated.TokenHash)
		wantError(t, "a revoked session, elsewhere", err, ErrNotFound)
	}
}

// TestEndedBehindItsBack: what another program does to the table is noticed, except for what only prolongs a session.
func TestEndedBehindItsBack(t *testing.T) {
	d := openDB(t)
	i := newInstance(t, d)
	for _, statement := range []string{
		`DELETE FROM sessions WHERE id = $1`,
		`UPDATE sessions SET idle_expires_at = now() WHERE id = $1`,
		`UPDATE sessions SET token_hash = sha256('x') WHERE id = $1`,
	} {
		s := mustCreate(t, i, ids.New())
		i.warm(t, s)
		mustExec(t, d, statement, s.ID)
		eventually(t, statement, func() bool {
			_, err := i.ByToken(t.Context(), s.TokenHash)
			return errors.Is(err, ErrNotFound)
		})
	}
}

// TestUseMakesNoNoise: noting the use of sessions, and removing expired ones, leaves nothing for the relay to do.
func TestUseMakesNoNoise(t *testing.T) {
	d := openDB(t)
	r := NewDirectRepository(d)
	used, expired := mustCreate(t, r, ids.New()), mustCreate(t, r, ids.New())
	age(t, d, used.ID, time.Hour)
	age(t, d, expired.ID, 8*day)
	mustExec(t, d, `DELETE FROM cache_outbox`)
	n, err := r.Seen(t.Context(), []Use{{ID: used.ID}}, SeenPolicy{Idle: 7 * day})
	if n != 1 || err != nil {
		t.Fatalf("%d uses written, %v", n, err)
	}
	if n, err = r.DeleteExpired(t.Context(), 10); n != 1 || err != nil {
		t.Fatalf("%d sessions removed, %v", n, err)
	}
	var noise int
	if err := d.SQL().QueryRowContext(t.Context(), `SELECT count(*) FROM cache_outbox`).Scan(&noise); err != nil || noise != 0 {
		t.Errorf("%d invalidations, %v", noise, err)
	}
}
