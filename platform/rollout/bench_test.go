package rollout

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db"
)

// BenchmarkCompare compares reads that wait, and holds what one takes (ns/op) against the read that was answered. What all
// of it adds to the latency of those who are answered is a row of make bench.
func BenchmarkCompare(b *testing.B) {
	const waiting = 50
	f := newToy(b, Setting{Shadow, Whole})
	if _, err := f.db.SQL().ExecContext(b.Context(), `INSERT INTO items SELECT i, 'name' FROM generate_series(2, 1000) i`); err != nil {
		b.Fatal(err)
	}
	f.ladder.Repository = ormShelf{f.db}
	var answers, comparisons []time.Duration
	timed := func(took *[]time.Duration, do func()) {
		started := time.Now()
		do()
		*took = append(*took, time.Since(started)/waiting)
	}
	for b.Loop() {
		timed(&answers, func() {
			for i := range waiting {
				if _, err := f.byID(b.Context(), strconv.Itoa(i+1)); err != nil {
					b.Fatal(err)
				}
			}
		})
		timed(&comparisons, func() { f.users.compare.next(b.Context()) })
	}
	if t := f.users.counters.tally(); t.Compared != uint64(b.N*waiting) || t.Mismatched > 0 {
		b.Fatalf("counted %+v", t)
	}
	median := func(took []time.Duration) float64 {
		slices.Sort(took)
		return float64(took[len(took)/2])
	}
	b.ReportMetric(median(comparisons), "ns/op")
	b.ReportMetric(median(answers), "answer-ns/op")
	b.ReportMetric(median(comparisons)/median(answers), "x-answer")
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
