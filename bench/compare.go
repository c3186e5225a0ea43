//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// bench is a run.
type bench struct {
	options
	*machine
}

// A subject is one side of a comparison.
type subject struct {
	*process
	plans []plan
	sum   figures
}

// figures are what the windows of a subject showed together.
type figures struct {
	PerSecond   float64       `json:"requests_per_second"`
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	CPU         time.Duration `json:"cpu_ns_per_request"` // of the process; the kernel's share for it included
	Postgres    time.Duration `json:"postgres_cpu_ns_per_request"`
	Allocations float64       `json:"allocations_per_request"`

	took      time.Duration
	latencies []time.Duration
	used      usage
}

// measure drives a subject for a window, and returns the requests per second. An answer that is not a success makes the
// measurement void.
func (b *bench) measure(s *subject, d time.Duration) (float64, error) {
	_ = os.Truncate(s.output, 0) // the log is written as in production, but need not be kept
	before, err := b.usage(s.process)
	if err != nil {
		return 0, err
	}
	l, err := drive(s.addr, s.plans, d, 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.name, err)
	}
	if l.refused > 0 {
		return 0, fmt.Errorf("%s: %d of %d answers were no success, such as %s", s.name, l.refused, len(l.latencies), l.last)
	}
	after, err := b.usage(s.process)
	if err != nil {
		return 0, err
	}
	s.sum.add(l, before, after)
	return l.perSecond(), nil
}

func (f *figures) add(l *load, before, after usage) {
	f.took += l.took
	f.latencies = append(f.latencies, l.latencies...)
	f.used.cpu += after.cpu - before.cpu
	f.used.postgres += after.postgres - before.postgres
	f.used.mallocs += after.mallocs - before.mallocs
}

// finish works out the figures of all windows.
func (f *figures) finish() {
	whole := &load{took: f.took, latencies: f.latencies}
	f.PerSecond, f.P50, f.P99 = whole.perSecond(), whole.percentile(50), whole.percentile(99)
	f.each(len(f.latencies))
}

// each divides what was used by n.
func (f *figures) each(n int) {
	f.CPU, f.Postgres = f.used.cpu/time.Duration(n), f.used.postgres/time.Duration(n)
	f.Allocations = f.used.mallocs / float64(n)
}

// spread is the median of what was found, and how far it went.
type spread struct {
	Median float64   `json:"median"`
	Low    float64   `json:"low"`
	High   float64   `json:"high"`
	Each   []float64 `json:"each"`
}

func spreadOf(each []float64) spread {
	sorted := slices.Sorted(slices.Values(each))
	n := len(sorted)
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Low: sorted[0], High: sorted[n-1], Each: each}
}

// alternate measures the subjects in turn, in one order and then in the other. It returns each one's requests per
// second, by round.
func (b *bench) alternate(ctx context.Context, subjects []*subject) ([][]float64, error) {
	found := make([][]float64, len(subjects))
	for _, s := range subjects {
		if _, err := b.measure(s, b.window/2); err != nil { // to warm up
			return nil, err
		}
		s.sum = figures{}
	}
	for round := range b.rounds {
		for i := range subjects {
			if round%2 == 1 {
				i = len(subjects) - 1 - i
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			perSecond, err := b.measure(subjects[i], b.window)
			if err != nil {
				return nil, err
			}
			found[i] = append(found[i], perSecond)
		}
	}
	for _, s := range subjects {
		s.sum.finish()
	}
	return found, nil
}

// ratios are those of two subjects, pair by pair.
func ratios(of, to []float64) spread {
	each := make([]float64, len(of))
	for i := range of {
		each[i] = of[i] / to[i]
	}
	return spreadOf(each)
}

// profiled takes a process' profiles while load is on it, if they are wanted.
func (b *bench) profiled(p *process, name string, load func() error) error {
	if b.profile == "" {
		return nil
	}
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		seconds := max(1, int(b.window.Seconds()))
		failed <- errors.Join(
			fetch(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.admin, seconds), filepath.Join(b.profile, name+".cpu.prof")),
			fetch(fmt.Sprintf("http://%s/debug/pprof/allocs", p.admin), filepath.Join(b.profile, name+".allocs.prof")))
	}()
	return errors.Join(load(), <-failed)
}

// more is one more window of a subject, for its profile.
func (b *bench) more(s *subject) func() error {
	return func() error {
		_, err := b.measure(s, b.window+time.Second)
		return err
	}
}

func fetch(url, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}
