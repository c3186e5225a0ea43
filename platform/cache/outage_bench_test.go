package cache

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// An outage is what happens to Redis, which the instances reach through proxies.
var outages = []struct {
	name   string
	begins func(b *testing.B, server *dbtest.RedisServer, proxies []*proxy)
}{
	{"none", func(*testing.B, *dbtest.RedisServer, []*proxy) {}},
	{"down", func(_ *testing.B, server *dbtest.RedisServer, _ []*proxy) { server.Stop() }},
	{"frozen", func(_ *testing.B, server *dbtest.RedisServer, _ []*proxy) { server.Pause() }},
	{"full", func(b *testing.B, server *dbtest.RedisServer, _ []*proxy) {
		b.Helper()
		command(b, server, "CONFIG", "SET", "maxmemory", "1mb")
	}},
	{"slow", func(_ *testing.B, _ *dbtest.RedisServer, proxies []*proxy) {
		for _, p := range proxies {
			p.delay.Store(int64(50 * time.Millisecond)) // each way
		}
	}},
	{"slow for one", func(_ *testing.B, _ *dbtest.RedisServer, proxies []*proxy) {
		proxies[1].delay.Store(int64(50 * time.Millisecond))
	}},
}

// BenchmarkOutage measures reads and strict writes of one of two instances in the first three seconds of an outage, and
// afterwards, each in turns with the same without the cache. Run it with -benchtime 1x.
func BenchmarkOutage(b *testing.B) {
	for _, o := range outages {
		b.Run(o.name, func(b *testing.B) {
			for b.Loop() {
				server := dbtest.Redis(b, "--maxmemory-policy", "noeviction")
				s := newSetup(b, "")
				s.exec(b, `INSERT INTO things (id) VALUES ('a'), ('b')`)
				var proxies []*proxy
				var instances []*instance
				for n := range 2 {
					proxies = append(proxies, newProxy(b, server.Addr))
					s.config.RedisURL = proxies[n].url()
					instances = append(instances, s.start(b))
					instances[n].warm(b, "a")
				}
				o.begins(b, server, proxies)
				measureOutage(b, instances[0], "first-", 3*time.Second)
				measureOutage(b, instances[0], "later-", 3*time.Second)
			}
		})
	}
}

func measureOutage(b *testing.B, i *instance, phase string, d time.Duration) {
	b.Helper()
	const update = `UPDATE things SET n = n + 1 WHERE id = $1`
	reads, plainReads := samples{}, samples{}
	writes, plainWrites := samples{}, samples{}
	end := time.Now().Add(d)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for time.Now().Before(end) {
			writes.time(b, func() error { return i.write(b.Context(), "a", update) })
			plainWrites.time(b, func() error {
				return i.db.InTx(b.Context(), func(ctx context.Context) error {
					_, err := i.db.Querier(ctx).ExecContext(ctx, update, "b")
					return err
				})
			})
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for time.Now().Before(end) {
		reads.time(b, func() error { _, err := i.get(b.Context(), "a"); return err })
		plainReads.time(b, func() error { _, err := i.get(WithBypass(b.Context()), "a"); return err })
		time.Sleep(500 * time.Microsecond)
	}
	<-done
	for name, of := range map[string][2]samples{"read": {reads, plainReads}, "write": {writes, plainWrites}} {
		for q, share := range map[string]float64{"p50": .5, "p99": .99} {
			b.ReportMetric(of[0].quantile(share), phase+name+"-"+q+"-ms")
			b.ReportMetric(of[1].quantile(share), phase+name+"-"+q+"-plain-ms")
		}
	}
}

// samples are times in milliseconds.
type samples []float64

func (s *samples) time(b *testing.B, f func() error) {
	b.Helper()
	start := time.Now()
	if err := f(); err != nil {
		b.Error(err)
	}
	*s = append(*s, time.Since(start).Seconds()*1000)
}

func (s samples) quantile(q float64) float64 {
	slices.Sort(s)
	return s[int(q*float64(len(s)-1))]
}
