package rollout

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// BenchmarkShadow measures what comparing all reads costs those who are answered: rounds of readers at a fixed pace, in
// turn on direct and in shadow at 100 %. The ratio of the 99th percentiles may be 1.05 at most.
func BenchmarkShadow(b *testing.B) {
	const (
		readers = 8
		pace    = 4 * time.Millisecond // of each reader: together half of what one core answers
		round   = 500 * time.Millisecond
		rounds  = 20
	)
	f := newToy(b, Setting{Direct, Whole}, func(c *Config, _ *Spec) { c.PollInterval = time.Second })
	if _, err := f.db.SQL().ExecContext(b.Context(), `INSERT INTO items SELECT i, 'name' FROM generate_series(2, 1000) i`); err != nil {
		b.Fatal(err)
	}
	f.ladder.Repository = ormShelf{f.db}
	f.run(b)
	var took [2][]time.Duration
	for b.Loop() {
		for n := range rounds {
			stage := n % 2
			f.users.set(Setting{Stages[stage], Whole}, int64(n+2))
			took[stage] = append(took[stage], f.paced(b, readers, pace, round)...)
			f.idle()
		}
	}
	p99 := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)*99/100])
	}
	t := f.users.counters.tally()
	b.ReportMetric(p99(took[1])/p99(took[0]), "p99-ratio")
	b.ReportMetric(p99(took[0])/1e6, "direct-p99-ms")
	b.ReportMetric(float64(t.Dropped)/float64(t.Dropped+t.Compared), "dropped-ratio")
	b.ReportMetric(float64(t.Compared), "compared")
	b.ReportMetric(0, "ns/op")
}

// paced reads for a while, and returns how long each answer took.
func (f *toy) paced(b *testing.B, readers int, pace, span time.Duration) []time.Duration {
	b.Helper()
	took := make([][]time.Duration, readers)
	var all sync.WaitGroup
	end := time.Now().Add(span)
	for r := range readers {
		all.Go(func() {
			next := time.Now().Add(pace * time.Duration(r) / time.Duration(readers))
			for i := r; next.Before(end); i += readers {
				time.Sleep(time.Until(next))
				started := time.Now()
				if _, err := f.byID(b.Context(), strconv.Itoa(i%1000+1)); err != nil {
					b.Error(err)
				}
				took[r] = append(took[r], time.Since(started))
				next = next.Add(pace)
			}
		})
	}
	all.Wait()
	return slices.Concat(took...)
}

// idle waits until nothing is left to compare.
func (f *toy) idle() {
	for len(f.users.compare.jobs) > 0 || len(f.users.compare.doubts) > 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
}

// ormShelf reads items as the second rungs do.
type ormShelf struct{ db *db.DB }

func (s ormShelf) ByID(ctx context.Context, id string) (item, error) {
	var i item
	err := s.db.Gorm(ctx).Table("items").Take(&i, "id = ?", id).Error
	return i, db.Translate(err, nil)
}

func (s ormShelf) List(ctx context.Context) ([]item, error) {
	i, err := s.ByID(ctx, "1")
	return []item{i}, err
}

func (s ormShelf) Rename(_ context.Context, id, name string) (item, error) {
	return item{ID: id, Name: name}, nil
}
