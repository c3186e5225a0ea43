// Package cache answers reads of single entities from memory without ever returning, after a write was acknowledged,
// the state before it.
//
// There are two tiers: decoded values in the process, and encoded ones in Redis. Either may be left out, and losing any
// part of either at any moment costs hits, never correctness. What keeps them coherent is described in docs/cache.md;
// in short:
//
//   - Every write to a watched table leaves a row in cache_outbox, by trigger, whoever writes. One instance, the relay,
//     drains it and renews a freshness marker on Redis' clock. Nobody believes anything without a live marker.
//   - An instance serves from its memory only under a lease, shorter than the marker's life, which it gets together with
//     the invalidations that it has not applied yet.
//   - A writer that uses Touch deletes the key and appends to the invalidation log right after COMMIT, and is held until
//     every instance with a lease has applied that, or the lease has run out.
//   - A reader fills a key in Redis only under a lease of that key, which every invalidation takes away, and in process
//     only if the key's generation has not changed since before it read.
//
// A module names its entities once with For, reads them with Entity.Get, attaches cache_outbox_note to their tables, and
// calls Touch in the transactions that change them.
package cache

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/strata-accounts/strata/platform/db"
)

// The protocol's constants. They belong together and are no matter of taste, so they are not configuration.
const (
	freshFor  = 900 * time.Millisecond // the marker's life: a foreign write is visible after that at most
	leaseFor  = 250 * time.Millisecond // an in-process lease at most
	syncEvery = 50 * time.Millisecond  // an instance renews its lease
	pollEvery = 40 * time.Millisecond  // the relay drains the outbox
)

// drifted allows for clocks that run at different speeds, by 10 % at most.
func drifted(d time.Duration) time.Duration { return d + d/10 }

// Config says which tiers there are and how large they may become.
type Config struct {
	RedisURL     string        // empty: this process' memory alone; never logged
	KeyPrefix    string        // of everything in Redis
	RedisTimeout time.Duration // for one call; one that takes longer counts as failed

	Entries int   // in process at most; 0 leaves that tier out
	Bytes   int64 // in process at most, estimated

	TTL         time.Duration // of a value, at most 60 s: what a disabled trigger can cost
	NegativeTTL time.Duration // of the knowledge that something does not exist
	CheckEvery  time.Duration // a hit of each kind is compared with PostgreSQL this often; 0 never

	Bypass  func(ctx context.Context) bool    // reads for which it says yes go to PostgreSQL, as with WithBypass; nil: none
	Checked func(kind, id string, stale bool) // hears what a comparison of a hit has shown; may be nil
	Traces  trace.TracerProvider              // of a request's calls of Redis, without keys and values; nil: they are not traced
}

// Defaults returns the configuration that a deployment without any runs with.
func Defaults() Config {
	return Config{
		KeyPrefix: "strata", RedisTimeout: 50 * time.Millisecond, Entries: 100_000, Bytes: 64 << 20,
		TTL: time.Minute, NegativeTTL: 5 * time.Second, CheckEvery: time.Second,
	}
}

func (c Config) validate() error {
	switch {
	case c.Entries < 0 || c.Bytes < 0:
		return errors.New("cache: entries and bytes must not be negative")
	case c.Entries > 0 && c.Bytes == 0:
		return errors.New("cache: bytes must be set where entries is")
	case c.TTL <= 0 || c.TTL > time.Minute || c.NegativeTTL <= 0 || c.NegativeTTL > c.TTL:
		return errors.New("cache: ttl must lie in (0, 60 s], negative_ttl in (0, ttl]")
	case c.RedisURL != "" && (c.KeyPrefix == "" || strings.ContainsAny(c.KeyPrefix, "{}")):
		return errors.New("cache: the key prefix must not be empty nor hold braces")
	case c.RedisURL != "" && (c.RedisTimeout <= 0 || c.RedisTimeout > controlTimeout):
		return errors.New("cache: redis_timeout must lie in (0, 250 ms]")
	}
	return nil
}

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations returns the tables of the protocol and the trigger function that modules attach to theirs:
//
//	CREATE TRIGGER users_cache AFTER INSERT OR UPDATE OR DELETE ON users
//	    FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('user', 'id');
//	CREATE TRIGGER users_cache_truncate AFTER TRUNCATE ON users EXECUTE FUNCTION cache_outbox_note('user');
//
// They come before the modules' own.
func Migrations() db.Migration { return db.Embedded("cache", migrations) }

// Cache is one process' part of the protocol. There is one per process. It is safe for concurrent use.
type Cache struct {
	cfg Config
	db  *db.DB
	log *slog.Logger
	id  string // of this process start

	local   *local
	shared  *shared // nil without Redis
	groups  []*group
	acks    *acknowledgements
	moved   chan struct{} // the epoch has changed, and with it perhaps the server
	touched sync.Map      // db.Querier of a transaction -> *touched
	bounded sync.Map      // kinds that are not strict
	due     sync.Map      // kind -> *atomic.Bool: its next hit is to be compared with PostgreSQL
	metrics *metrics
}

// Open prepares a cache; nothing is cached until Run runs. It does not wait for Redis, whose absence is no error.
// Errors: a configuration that cannot be; metrics registered twice.
func Open(ctx context.Context, cfg Config, d *db.DB, log *slog.Logger, reg prometheus.Registerer) (*Cache, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Cache{
		cfg: cfg, db: d, log: log, id: rand.Text()[:12],
		local: newLocal(cfg.Entries, cfg.Bytes), acks: newAcknowledgements(), moved: make(chan struct{}, 1),
	}
	groups := 1
	if cfg.RedisURL != "" {
		var err error
		if c.shared, err = openShared(cfg, c.id); err != nil {
			return nil, err
		}
		groups = c.shared.groups
	}
	for i := range groups {
		c.groups = append(c.groups, newGroup(i))
	}
	c.metrics = newMetrics(c)
	if err := reg.Register(c.metrics); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.warnOfEviction(ctx)
	return c, nil
}

// Redis returns the client of requests for uses outside of the cache, such as rate limits; nil without Redis. It is
// closed with the cache.
func (c *Cache) Redis() redis.UniversalClient {
	if c.shared == nil {
		return nil
	}
	return c.shared.client
}

// Run keeps the protocol going until ctx ends. Without it every read goes to PostgreSQL.
func (c *Cache) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return newRelay(c).run(ctx) })
	if c.shared != nil {
		for _, g := range c.groups {
			all.Go(func() error { return c.follow(ctx, g) })
		}
		all.Go(func() error { return c.listen(ctx) })
		all.Go(func() error { return c.acknowledge(ctx) })
	}
	all.Go(func() error { return c.sample(ctx) })
	if err := all.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Close lets go of Redis. Call it after Run has returned.
func (c *Cache) Close() error {
	if c.shared == nil {
		return nil
	}
	return c.shared.close()
}

// warnOfEviction says when Redis would rather refuse writes than forget what is least used, or forget at random.
func (c *Cache) warnOfEviction(ctx context.Context) {
	if c.shared == nil {
		return
	}
	policy, err := c.shared.evictionPolicy(ctx)
	switch {
	case err != nil:
		c.log.WarnContext(ctx, "redis did not tell its maxmemory-policy; it should be allkeys-lru", "error", err)
	case !strings.HasSuffix(policy, "-lru"):
		c.log.WarnContext(ctx, "redis does not evict what is least recently used; set maxmemory-policy allkeys-lru",
			"maxmemory_policy", policy)
	}
}

type bypassKey struct{}

// WithBypass returns a context whose reads go to PostgreSQL.
func WithBypass(ctx context.Context) context.Context {
	return context.WithValue(ctx, bypassKey{}, true)
}

// bypassed reports whether a read with ctx was asked to go to PostgreSQL.
func (c *Cache) bypassed(ctx context.Context) bool {
	return ctx.Value(bypassKey{}) != nil || c.cfg.Bypass != nil && c.cfg.Bypass(ctx)
}

func (c *Cache) group(n name) *group {
	if len(c.groups) == 1 {
		return c.groups[0]
	}
	return c.groups[c.shared.group(n)]
}
