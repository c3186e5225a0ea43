package cache

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"gorm.io/gorm"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// A thing is the entity of these tests. Its n only grows; poison is true in no committed state.
type thing struct {
	ID     string `gorm:"primaryKey"`
	N      int64
	Poison bool
}

func (thing) TableName() string { return "things" }

var errNoThing = errors.New("no such thing")

var things = db.Migration{Module: "things", FS: fs.FS(fstest.MapFS{"00001_things.sql": {Data: []byte(`-- +goose Up
CREATE TABLE things (id text PRIMARY KEY, n bigint NOT NULL DEFAULT 0, poison boolean NOT NULL DEFAULT false);
CREATE TRIGGER things_cache AFTER INSERT OR UPDATE OR DELETE ON things FOR EACH ROW EXECUTE FUNCTION cache_outbox_note('thing', 'id');
CREATE TRIGGER things_cache_truncate AFTER TRUNCATE ON things EXECUTE FUNCTION cache_outbox_note('thing');
`)}})}

// An instance is one process' worth of cache, with everything that reads and writes things through it.
type instance struct {
	*Cache
	things *Entity[thing]
	sql    bool
	stop   func()
}

// A setup is a deployment on a fresh database.
type setup struct {
	config  Config
	options Options
	sql     bool // loads with SQL, not with GORM
	db      *db.DB
}

// newSetup returns the default deployment on this Redis, if any.
func newSetup(t testing.TB, redisURL string) setup {
	t.Helper()
	s := setup{config: Defaults(), db: dbtest.Open(t, Migrations(), things)}
	s.config.RedisURL = redisURL
	s.config.CheckEvery = 20 * time.Millisecond
	s.options.NotFound = errNoThing
	if err := s.db.Gorm(t.Context()).Use(Plugin()); err != nil {
		t.Fatal(err)
	}
	return s
}

// start opens an instance and runs it until the test ends, or stop.
func (s setup) start(t testing.TB) *instance {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	c, err := Open(t.Context(), s.config, s.db, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	i := &instance{Cache: c, sql: s.sql}
	i.things = i.entity(s.options, i.load)
	i.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(i.stop)
	return i
}

// testWriter passes log lines to a test.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// entity declares things that are loaded like this.
func (i *instance) entity(options Options, load Load[thing]) *Entity[thing] {
	if i.sql {
		return For(i.Cache, "thing", options, load)
	}
	return Rows(i.Cache, "thing", options, load, func(_ ID, row thing) thing { return row })
}

// load reads a thing from PostgreSQL: through GORM and the plugin, or with SQL.
func (i *instance) load(ctx context.Context, id ID) (got thing, err error) {
	if i.sql {
		err = i.db.Querier(ctx).QueryRowContext(ctx, `SELECT id, n, poison FROM things WHERE id = $1`, id.String()).
			Scan(&got.ID, &got.N, &got.Poison)
	} else {
		err = i.db.Gorm(ctx).Take(&got, "id = ?", id.String()).Error
	}
	if db.IsNoRows(err) {
		return thing{}, errNoThing
	}
	return got, err
}

func (i *instance) get(ctx context.Context, id string) (thing, error) {
	return i.things.Get(ctx, Text(id))
}

// write runs a statement on a thing as a module does, and returns once the change is acknowledged.
func (i *instance) write(ctx context.Context, id, statement string) error {
	return i.db.InTx(ctx, func(ctx context.Context) error {
		if err := i.Touch(ctx, i.things.Key(Text(id))); err != nil {
			return err
		}
		_, err := i.db.Querier(ctx).ExecContext(ctx, statement, id)
		return err
	})
}

func (i *instance) misses() int  { return int(count(i.things.stats.misses)) }
func (i *instance) process() int { return int(count(i.things.stats.hitProcess)) }
func (i *instance) redis() int   { return int(count(i.things.stats.hitRedis)) }

// warm reads a thing until a read is answered from memory.
func (i *instance) warm(t testing.TB, id string) {
	t.Helper()
	until(t, id+" is read from memory", func() bool {
		hits := i.process() + i.redis()
		if _, err := i.get(t.Context(), id); err != nil && !errors.Is(err, errNoThing) {
			t.Fatal(err)
		}
		return i.process()+i.redis() > hits && (i.cfg.Entries == 0 || i.process() > 0)
	})
}

// count reads a counter.
func count(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// until waits for a state that comes by itself.
func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !reached(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not reached: %s", what)
		}
	}
}

func (s setup) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if _, err := s.db.SQL().ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
}

// clusterURL names all nodes of a cluster.
func clusterURL(nodes []*dbtest.RedisServer) string {
	u := nodes[0].URL + "?addr=" + nodes[1].Addr + "&addr=" + nodes[2].Addr
	return strings.Replace(u, "/0?", "?", 1)
}

// sentinelURL names the Sentinel second, after one that is down.
func sentinelURL(g *dbtest.RedisSentinelGroup) string {
	return strings.NewReplacer("redis://", "redis://127.0.0.1:1/0?addr=", "/0?", "&").Replace(g.URL)
}

// deployments runs a test on every kind of deployment.
func deployments(t *testing.T, test func(t *testing.T, s setup)) {
	t.Helper()
	t.Run("process", func(t *testing.T) { t.Parallel(); test(t, newSetup(t, "")) })
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		s := newSetup(t, dbtest.Redis(t).URL)
		s.config.Entries = 0
		test(t, s)
	})
	t.Run("both", func(t *testing.T) { t.Parallel(); test(t, newSetup(t, dbtest.Redis(t).URL)) })
	t.Run("both, with SQL", func(t *testing.T) {
		t.Parallel()
		s := newSetup(t, dbtest.Redis(t).URL)
		s.sql = true
		test(t, s)
	})
	t.Run("sentinel", func(t *testing.T) { t.Parallel(); test(t, newSetup(t, sentinelURL(dbtest.RedisSentinel(t)))) })
	t.Run("cluster", func(t *testing.T) { t.Parallel(); test(t, newSetup(t, clusterURL(dbtest.RedisCluster(t)))) })
}

func wantN(t testing.TB, i *instance, id string, want int64) {
	t.Helper()
	if got, err := i.get(t.Context(), id); err != nil || got.N != want {
		t.Fatalf("get %s: %+v, %v; want n = %d", id, got, err, want)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	deployments(t, func(t *testing.T, s setup) {
		i := s.start(t)
		s.exec(t, `INSERT INTO things (id, n) VALUES ('a', 1), ('b', 10)`)
		i.warm(t, "a")
		i.warm(t, "b")

		t.Run("an acknowledged write is visible", func(t *testing.T) {
			for n := int64(2); n < 20; n++ {
				if err := i.write(t.Context(), "a", `UPDATE things SET n = n + 1 WHERE id = $1`); err != nil {
					t.Fatal(err)
				}
				wantN(t, i, "a", n)
			}
		})
		t.Run("so is one outside a transaction", func(t *testing.T) {
			i.warm(t, "a")
			s.exec(t, `UPDATE things SET n = 50 WHERE id = 'a'`)
			if err := i.Touch(t.Context(), i.things.Key(Text("a"))); err != nil {
				t.Fatal(err)
			}
			wantN(t, i, "a", 50)
		})
		t.Run("a foreign write comes by itself", func(t *testing.T) {
			i.warm(t, "a")
			s.exec(t, `UPDATE things SET n = 60 WHERE id = 'a'`)
			time.Sleep(time.Second)
			wantN(t, i, "a", 60)
		})
		t.Run("so does truncation", func(t *testing.T) {
			i.warm(t, "b")
			s.exec(t, `TRUNCATE things`)
			time.Sleep(time.Second)
			if got, err := i.get(t.Context(), "b"); !errors.Is(err, errNoThing) {
				t.Fatalf("got %+v, %v", got, err)
			}
			s.exec(t, `INSERT INTO things (id, n) VALUES ('a', 60), ('b', 10)`)
		})
		t.Run("what does not exist is remembered, and forgotten on creation", func(t *testing.T) {
			i.warm(t, "new")
			if err := i.write(t.Context(), "new", `INSERT INTO things (id, n) VALUES ($1, 7)`); err != nil {
				t.Fatal(err)
			}
			wantN(t, i, "new", 7)
		})
		t.Run("a rolled back write leaves nothing", func(t *testing.T) {
			i.warm(t, "b")
			failed := errors.New("no")
			err := s.db.InTx(t.Context(), func(ctx context.Context) error {
				if err := i.Touch(ctx, i.things.Key(Text("b"))); err != nil {
					return err
				}
				if _, err := s.db.Querier(ctx).ExecContext(ctx, `UPDATE things SET n = 99 WHERE id = 'b'`); err != nil {
					return err
				}
				if got, err := i.get(ctx, "b"); err != nil || got.N != 99 {
					t.Errorf("in the transaction: %+v, %v; want its own state", got, err)
				}
				return failed
			})
			if !errors.Is(err, failed) {
				t.Fatal(err)
			}
			wantN(t, i, "b", 10)
		})
		t.Run("a bypassing read asks PostgreSQL", func(t *testing.T) {
			i.warm(t, "b")
			hits := i.process() + i.redis()
			if _, err := i.get(WithBypass(t.Context()), "b"); err != nil || i.process()+i.redis() != hits {
				t.Fatalf("answered from memory, or %v", err)
			}
		})
		t.Run("what is served is what PostgreSQL holds", func(t *testing.T) {
			until(t, "checks", func() bool {
				_, _ = i.get(t.Context(), "b")
				return count(i.things.stats.checkSame) > 2
			})
			if stale := count(i.things.stats.checkStale); stale != 0 {
				t.Fatalf("%v stale entries", stale)
			}
		})
	})
}

// TestStaleHitsAreFound changes a row without a note, as a disabled trigger would: what the caches cannot know, the checks
// must tell. Caches that forget everything meanwhile, as on a busy machine they may, are given another change to miss.
func TestStaleHitsAreFound(t *testing.T) {
	t.Parallel()
	for name, redis := range map[string]bool{"process": false, "redis": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t, "")
			if redis {
				s = newSetup(t, dbtest.Redis(t).URL)
				s.config.Entries = 0
			}
			stale := make(chan string, 1000)
			s.config.Checked = func(kind, id string, isStale bool) {
				if isStale {
					stale <- kind + ":" + id
				}
			}
			i := s.start(t)
			s.exec(t, `INSERT INTO things (id, n) VALUES ('a', 1)`)
			i.warm(t, "a")
			stored := int64(1)
			until(t, "the stale hit is found", func() bool {
				if got, err := i.get(t.Context(), "a"); err == nil && got.N == stored {
					stored++
					s.exec(t, fmt.Sprintf(`SET session_replication_role = replica; UPDATE things SET n = %d; SET session_replication_role = DEFAULT`, stored))
				}
				return len(stale) > 0
			})
			if got := <-stale; got != "thing:a" || count(i.things.stats.checkStale) == 0 {
				t.Errorf("stale: %s, %v counted", got, count(i.things.stats.checkStale))
			}
		})
	}
}

func TestConfigIsValidated(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"ttl above a minute":      func(c *Config) { c.TTL = 2 * time.Minute },
		"no negative ttl":         func(c *Config) { c.NegativeTTL = 0 },
		"entries without bytes":   func(c *Config) { c.Bytes = 0 },
		"braces in the prefix":    func(c *Config) { c.RedisURL, c.KeyPrefix = "redis://localhost", "{x}" },
		"a timeout of seconds":    func(c *Config) { c.RedisURL, c.RedisTimeout = "redis://localhost", time.Second },
		"a URL of something else": func(c *Config) { c.RedisURL = "http://:secret@localhost" },
	} {
		c := Defaults()
		change(&c)
		_, err := Open(t.Context(), c, nil, slog.Default(), prometheus.NewRegistry())
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var _ gorm.Plugin = Plugin()

// TestMain lets more tests run at once than there are cores: they wait more than they work.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}
