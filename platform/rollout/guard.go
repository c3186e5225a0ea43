package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What the new path may do worse than the old one before the module is moved back.
const (
	guardCalls       = 500   // below so many nothing is said about errors or latency
	guardErrors      = 0.001 // of the calls, over the old path's rate
	guardSlowdown    = 1.5   // times the old path's p99 …
	guardSlack       = 5 * time.Millisecond
	guardSlowWindows = 2 // one after the other
	guardWindow      = 30 * time.Second
	guardPatience    = 10 * time.Minute // a window without guardCalls stays open so long
)

// Guard is the actor of the moves that the guard makes.
const Guard = "guard"

// A watch follows what all instances count about one module, in windows.
type watch struct {
	version int64
	from    tally // at the start of the window
	started time.Time
	slow    int // windows one after the other
}

// judge returns why the module must move back, or "". It looks at the path that the stage leads to where that one
// answers: what differs in shadow harms nobody.
func (w *watch) judge(now time.Time, spec Spec, row stageRow, f fleet) string {
	if row.Stage != Repository && row.Stage != Cached {
		return ""
	}
	if f.Mismatched*10_000 > uint64(max(spec.MismatchBudget, 0))*f.Compared {
		return fmt.Sprintf("%d of %d comparisons differ; %d of 10,000 may.", f.Mismatched, f.Compared, spec.MismatchBudget)
	}
	if w.version != row.version {
		*w = watch{version: row.version, from: f.tally, started: now}
		return ""
	}
	since := f.minus(w.from)
	outside, inside := row.Stage.paths()
	before, after := since.Paths[outside], since.Paths[inside]
	enough := after.calls() >= guardCalls
	if enough && after.errorRate() > before.errorRate()+guardErrors {
		return fmt.Sprintf("%d of %d calls failed on the path %s, and %d of %d on %s.",
			after.errors(), after.calls(), pathNames[inside], before.errors(), before.calls(), pathNames[outside])
	}
	if age := now.Sub(w.started); age < guardWindow || !enough && age < guardPatience {
		return ""
	}
	return w.close(now, f.tally, before, after)
}

// close ends a window, and returns what the last ones say about latency.
func (w *watch) close(now time.Time, t tally, before, after pathTally) string {
	w.from, w.started = t, now
	reason := slower("reads", before.Reads, after.Reads)
	if reason == "" {
		reason = slower("writes", before.Writes, after.Writes)
	}
	if reason == "" {
		w.slow = 0
		return ""
	}
	if w.slow++; w.slow < guardSlowWindows {
		return ""
	}
	return reason
}

// slower says by how much the new path is over its latency budget, if it is.
func slower(what string, before, after operationTally) string {
	if before.calls() < guardCalls || after.calls() < guardCalls {
		return ""
	}
	was, is := before.quantile(.99), after.quantile(.99)
	if float64(is) <= guardSlowdown*float64(was)+float64(guardSlack) {
		return ""
	}
	return fmt.Sprintf("The p99 of %s is %v, and was %v.", what, is, was)
}

// guard moves back the modules whose new path is over budget, and reports whether it moved one.
func (r *Registry) guard(ctx context.Context, rows []stageRow) (moved bool, err error) {
	fleets, err := r.fleets(ctx)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		m := r.module(row.module)
		if m == nil {
			continue
		}
		reason := m.watch.judge(time.Now(), m.spec, row, fleets[row.module])
		if reason == "" {
			continue
		}
		back := Setting{Stages[row.Stage.index()-1], Whole}
		err := r.change(ctx, Change{Module: m.name, To: back, Version: row.version, Actor: Guard, Reason: reason})
		switch {
		case errors.Is(err, ErrVersionChanged): // another instance was faster
		case err != nil:
			return moved, err
		default:
			r.log.ErrorContext(ctx, "rollout: the guard moves a module back", "module", m.name, "from", row.Setting, "to", back, "reason", reason)
		}
		moved = true
	}
	return moved, nil
}
