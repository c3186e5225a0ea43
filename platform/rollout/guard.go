package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What the new path may do worse than the old one before the module is moved back.
const (
	guardCompared    = 10_000 // comparisons at least that the last ones are judged by, once there are so many
	guardCalls       = 500    // below so many nothing is said about errors or latency
	guardErrors      = 0.001  // of the calls, over the old path's rate
	guardSlowdown    = 1.5    // times the old path's p99 …
	guardSlack       = 5 * time.Millisecond
	guardSlowWindows = 2 // one after the other
	guardWindow      = 30 * time.Second
	guardPatience    = 10 * time.Minute // a window without guardCalls stays open so long
	guardMemory      = time.Hour        // how long what is known of a path at rest is good for
)

// Guard is the actor of the moves that the guard makes.
const Guard = "guard"

// A watch follows what all instances count about one module, in windows.
type watch struct {
	version      int64
	from         tally // at the start of the window
	started      time.Time
	closed       bool     // there was a window before
	slow         int      // windows one after the other
	older, newer verdicts // when the last comparisons to be judged by began, and half-way
	unjudged     []string
}

// verdicts are comparisons, and how many of them spoke against the new path.
type verdicts struct{ made, against uint64 }

// verdicts returns what has been compared with the path that answers: with the other one, or hits with PostgreSQL.
func (t tally) verdicts(s Stage) verdicts {
	if s == Cached {
		return verdicts{t.Checked, t.Stale}
	}
	return verdicts{t.Compared, t.Mismatched}
}

// judge returns why the module must move back, or "". It looks at the path that the stage leads to where that one
// answers: what differs in shadow harms nobody.
func (w *watch) judge(now time.Time, spec Spec, row stageRow, f fleet) string {
	if row.Stage != Repository && row.Stage != Cached {
		*w = watch{}
		return ""
	}
	if w.version != row.version || f.shrunk(w.from) {
		*w = watch{version: row.version, from: f.tally, started: now}
	}
	if reason := w.differing(f.verdicts(row.Stage), row.Stage, spec.MismatchBudget); reason != "" {
		return reason
	}
	since := f.minus(w.from)
	outside, inside := row.Stage.paths()
	before, after := since.Paths[outside], since.Paths[inside]
	enough := after.calls() >= guardCalls
	if enough && after.errorRate() > before.errorRate()+guardErrors {
		return fmt.Sprintf("%d of %d calls failed on the path %s, and %d of %d on %s.",
			after.errors(), after.calls(), pathNames[inside], before.errors(), before.calls(), pathNames[outside])
	}
	age := now.Sub(w.started)
	open := age < guardWindow || !enough && age < guardPatience
	if !w.closed {
		w.unjudged = nil
	}
	if !enough && (!open || !w.closed) {
		w.unjudged = []string{fmt.Sprintf("Errors and latency: the path %s has had %d calls in %v, of the %d that it takes.",
			pathNames[inside], after.calls(), age.Truncate(time.Second), guardCalls)}
	}
	switch {
	case open:
		return ""
	case !enough:
		w.from, w.started, w.slow, w.closed = f.tally, now, 0, true
		return ""
	default:
		return w.close(now, f.tally, row, before, after)
	}
}

// differing judges the last comparisons: all of them at first, later between one and two times guardCompared, so that
// good ones of long ago cannot outweigh what differs now.
func (w *watch) differing(v verdicts, s Stage, budget int) string {
	if v.made < w.newer.made { // an instance that is long gone has been forgotten
		w.older, w.newer = verdicts{}, verdicts{}
	}
	if v.made-w.newer.made >= guardCompared {
		w.older, w.newer = w.newer, v
	}
	made, against := v.made-w.older.made, v.against-min(v.against, w.older.against)
	if against*10_000 <= uint64(max(budget, 0))*made {
		return ""
	}
	what := "comparisons differ"
	if s == Cached {
		what = "compared cache hits are stale"
	}
	return fmt.Sprintf("%d of %d %s; %d of 10,000 may.", against, made, what, budget)
}

// close ends a window, and returns what the last ones say about latency.
func (w *watch) close(now time.Time, t tally, row stageRow, before, after pathTally) string {
	w.from, w.started, w.closed, w.unjudged = t, now, true, nil
	outside, inside := row.Stage.paths()
	known := row.known[pathNames[outside]]
	reason := ""
	for _, part := range []struct {
		what          string
		before, after operationTally
		known         figure
	}{{"reads", before.Reads, after.Reads, known.Reads}, {"writes", before.Writes, after.Writes, known.Writes}} {
		was := part.known.recent(row.now)
		if part.before.calls() >= guardCalls {
			was = part.before.quantile(.99)
		}
		switch {
		case part.after.calls() < guardCalls:
			w.unjudged = append(w.unjudged, fmt.Sprintf("The latency of %s: the path %s had %d calls in the last window, of the %d "+
				"that it takes.", part.what, pathNames[inside], part.after.calls(), guardCalls))
		case was == 0:
			w.unjudged = append(w.unjudged, fmt.Sprintf("The latency of %s: the path %s had %d calls in the last window, of the %d "+
				"that it takes, and nothing is known of it from the last hour.", part.what, pathNames[outside], part.before.calls(), guardCalls))
		case reason == "":
			reason = slower(part.what, was, part.after.quantile(.99))
		}
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
func slower(what string, was, is time.Duration) string {
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
		unjudged := m.watch.unjudged
		m.unjudged.Store(&unjudged)
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
