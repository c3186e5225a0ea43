package rollout

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxDropped is the share of comparisons that may be dropped before those that were made prove nothing.
const maxDropped = 0.01

// Status is where a module stands, with what all instances have counted since it came there.
type Status struct {
	Module string
	Setting
	Version   int64
	ChangedAt time.Time

	Live, Acked                   int // instances, and those that have taken the version over
	Compared, Mismatched, Dropped uint64
	Checked, Stale                uint64       // cache hits, against PostgreSQL
	Paths                         []PathStatus // the one that the stage leaves, and the one that it leads to

	Advance  []string // what speaks against the next step; empty where it is safe
	Unjudged []string // what the guard of this process cannot judge, and why
}

// PathStatus is what has been counted on one path. In the stage shadow, the second path's calls are the comparisons.
type PathStatus struct {
	Name          string
	Calls, Errors uint64
	P50, P99      time.Duration // of reads, to an eighth; 0 without any
}

// Statuses returns all modules by name. Errors: those of the database.
func (r *Registry) Statuses(ctx context.Context) ([]Status, error) {
	rows, err := r.stages(ctx)
	if err != nil {
		return nil, err
	}
	fleets, err := r.fleets(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Status, 0, len(r.modules))
	for _, row := range rows {
		if m := r.module(row.module); m != nil {
			list = append(list, r.status(m, row, fleets[row.module]))
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return strings.Compare(a.Module, b.Module) })
	return list, nil
}

// Status returns one module. Errors: ErrNotFound, those of the database.
func (r *Registry) Status(ctx context.Context, module string) (Status, error) {
	list, err := r.Statuses(ctx)
	if err != nil {
		return Status{}, err
	}
	for _, s := range list {
		if s.Module == module {
			return s, nil
		}
	}
	return Status{}, ErrNotFound
}

func (r *Registry) status(m *Module, row stageRow, f fleet) Status {
	s := Status{
		Module: m.name, Setting: row.Setting, Version: row.version, ChangedAt: row.changedAt, Live: f.live, Acked: f.acked,
		Compared: f.Compared, Mismatched: f.Mismatched, Dropped: f.Dropped, Checked: f.Checked, Stale: f.Stale,
	}
	if unjudged := m.unjudged.Load(); unjudged != nil {
		s.Unjudged = *unjudged
	}
	outside, inside := row.Stage.paths()
	for p := outside; p <= inside; p++ {
		t := f.Paths[p]
		s.Paths = append(s.Paths, PathStatus{
			Name: pathNames[p], Calls: t.calls(), Errors: t.errors(), P50: t.Reads.quantile(.5), P99: t.Reads.quantile(.99),
		})
	}
	s.Advance = r.against(m, row, f)
	return s
}

// against returns what speaks against the next step.
func (r *Registry) against(m *Module, row stageRow, f fleet) []string {
	var reasons []string
	if f.acked < f.live || f.live == 0 {
		reasons = append(reasons, fmt.Sprintf("%d of %d live instances have acknowledged the stage.", f.acked, f.live))
	}
	switch row.Stage {
	case Shadow, Repository:
		return append(reasons, r.unproven(m, f.tally)...)
	case Cached:
		return append(reasons, r.unchecked(row.Reach, f.tally)...)
	default:
		return reasons
	}
}

// unchecked returns what is not known of the cache yet.
func (r *Registry) unchecked(reach int, t tally) []string {
	var reasons []string
	if t.Stale > 0 {
		reasons = append(reasons, fmt.Sprintf("%d of %d cache hits were stale.", t.Stale, t.Checked))
	}
	if reach == Whole {
		return append(reasons, "The module has arrived: there is no next stage.")
	}
	if want := uint64(r.cfg.MinChecked); t.Checked < want { //nolint:gosec // validated
		reasons = append(reasons, fmt.Sprintf("%d of %d cache hits have been compared with PostgreSQL.", t.Checked, want))
	}
	return reasons
}

// unproven returns what the comparisons have not shown yet.
func (r *Registry) unproven(m *Module, t tally) []string {
	var reasons []string
	if t.Mismatched > 0 {
		reasons = append(reasons, fmt.Sprintf("%d of %d comparisons differ.", t.Mismatched, t.Compared))
	}
	if want := uint64(r.cfg.MinCompared); t.Compared < want { //nolint:gosec // validated
		reasons = append(reasons, fmt.Sprintf("%d of %d comparisons have been made.", t.Compared, want))
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(m.counters.methods)) {
		if t.Methods[name] == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		reasons = append(reasons, "Not compared yet: "+strings.Join(missing, ", ")+".")
	}
	if offered := t.Compared + t.Dropped; t.Dropped > 0 && float64(t.Dropped) >= maxDropped*float64(offered) {
		reasons = append(reasons, fmt.Sprintf("%d of %d comparisons were dropped: the queue was full, or a path did not answer.", t.Dropped, offered))
	}
	return reasons
}
