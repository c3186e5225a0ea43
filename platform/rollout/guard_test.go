package rollout

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// traffic adds calls to a tally.
func traffic(c *counters, p path, calls int, took time.Duration, failures int) {
	for i := range calls {
		var err error
		if i < failures {
			err = errs.ErrInternal
		}
		c.reads[p].observe(took, err)
	}
}

func TestGuardsJudgement(t *testing.T) {
	const ms = time.Millisecond
	tests := map[string]struct {
		at      Setting
		budget  int
		windows func(c *counters, window int) // what happens in each
		want    string                        // a part of the reason; empty: it stays
		after   int                           // windows
	}{
		"equal": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			traffic(c, direct, 1000, ms, 1)
			traffic(c, repository, 1000, ms, 1)
		}, "", 0},
		"mismatches within the budget": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			c.compared.Add(10_000)
			c.mismatched.Add(1)
		}, "", 0},
		"mismatches over the budget": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			c.compared.Add(9_999)
			c.mismatched.Add(1)
		}, "1 of 9999 comparisons differ", 1},
		"no budget": {Setting{Repository, 500}, 0, func(c *counters, _ int) {
			c.compared.Add(1_000_000)
			c.mismatched.Add(1)
		}, "1 of 1000000 comparisons differ", 1},
		"shadow harms nobody": {Setting{Shadow, Whole}, 0, func(c *counters, _ int) {
			c.compare("ByID", false)
			traffic(c, repository, 1000, ms, 1000)
		}, "", 0},
		"errors": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			traffic(c, direct, 1000, ms, 1)
			traffic(c, repository, 1000, ms, 3)
		}, "3 of 1000 calls failed on the path repository", 1},
		"errors on the cache's path": {Setting{Cached, 500}, 1, func(c *counters, _ int) {
			traffic(c, cached, 500, ms, 1)
		}, "1 of 500 calls failed on the path cached", 1},
		"too few calls to tell": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			traffic(c, repository, 100, ms, 100)
		}, "", 0},
		"slow": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			traffic(c, direct, 1000, 10*ms, 0)
			traffic(c, repository, 1000, 30*ms, 0)
		}, "p99 of reads", 2},
		"slower within the budget": {Setting{Repository, 500}, 1, func(c *counters, _ int) {
			traffic(c, direct, 1000, 10*ms, 0)
			traffic(c, repository, 1000, 15*ms, 0)
		}, "", 0},
		"stale hits": {Setting{Cached, Whole}, 0, func(c *counters, _ int) {
			c.checked.Add(1_000)
			c.check(true)
		}, "1 of 1001 compared cache hits are stale", 1},
		"differences of the repository do not count against the cache": {Setting{Cached, Whole}, 0, func(c *counters, _ int) {
			c.compare("ByID", false)
		}, "", 0},
		"good comparisons of long ago do not outweigh what differs now": {Setting{Repository, 500}, 1, func(c *counters, window int) {
			c.compared.Add(20_000)
			if window == 2 {
				c.mismatched.Add(5)
			}
		}, "5 of 20000 comparisons differ", 3},
		"slow without an old path, which is known": {Setting{Cached, Whole}, 1, func(c *counters, _ int) {
			traffic(c, cached, 1000, 30*ms, 0)
		}, "The p99 of reads", 2},
		"as fast as the old path was": {Setting{Cached, Whole}, 1, func(c *counters, _ int) {
			traffic(c, cached, 1000, 10*ms, 0)
		}, "", 0},
		"slow now and then": {Setting{Repository, 500}, 1, func(c *counters, window int) {
			traffic(c, direct, 1000, ms, 0)
			traffic(c, repository, 1000, time.Duration(1+window%2*100)*ms, 0)
		}, "", 0},
	}
	for name, tt := range tests {
		c, w, now := newCounters(nil), &watch{}, time.Now()
		spec, row := Spec{MismatchBudget: tt.budget}, stageRow{Setting: tt.at, version: 4, now: now}
		row.known = baseline{"repository": {Reads: figure{10 * ms, now}}}
		reason, window := w.judge(now, spec, row, fleet{}), 0
		for window < 4 && reason == "" {
			tt.windows(c, window)
			window++
			now = now.Add(guardWindow)
			reason = w.judge(now, spec, row, fleet{tally: c.tally()})
		}
		if tt.want == "" && reason != "" || !strings.Contains(reason, tt.want) || tt.want != "" && window != tt.after {
			t.Errorf("%s: %q after %d windows, want %q after %d", name, reason, window, tt.want, tt.after)
		}
	}
}

// TestGuardSaysWhatItCannotJudge: silence would look like consent.
func TestGuardSaysWhatItCannotJudge(t *testing.T) {
	now := time.Now()
	known := func(age time.Duration) baseline {
		f := figure{time.Second, now.Add(-age)}
		return baseline{"repository": {Reads: f, Writes: f}}
	}
	for name, tt := range map[string]struct {
		calls int // on the new path in the window
		known baseline
		after time.Duration // the window's start
		want  []string
	}{
		"too early":          {10, known(0), time.Second, []string{"Errors and latency: the path cached has had 10 calls in 1s"}},
		"enough for errors":  {1000, known(0), time.Second, nil},
		"too few":            {10, known(0), guardPatience, []string{"Errors and latency: the path cached has had 10 calls in 10m0s"}},
		"known of the past":  {1000, known(time.Minute), guardWindow, nil},
		"forgotten":          {1000, known(2 * time.Hour), guardWindow, []string{"The latency of reads: the path repository", "The latency of writes: the path repository"}},
		"never seen at work": {1000, nil, guardWindow, []string{"The latency of reads: the path repository", "The latency of writes: the path repository"}},
	} {
		c, w, row := newCounters(nil), &watch{}, stageRow{Setting: Setting{Cached, Whole}, version: 4, now: now, known: tt.known}
		w.judge(now, Spec{}, row, fleet{tally: c.tally()})
		traffic(c, cached, tt.calls, time.Millisecond, 0)
		for range tt.calls {
			c.writes[cached].observe(time.Millisecond, nil)
		}
		if tt.calls < guardCalls { // reads and writes count together
			tt.want[0] = strings.Replace(tt.want[0], " 10 calls", " 20 calls", 1)
		}
		if reason := w.judge(now.Add(tt.after), Spec{}, row, fleet{tally: c.tally()}); reason != "" {
			t.Errorf("%s: moved back: %s", name, reason)
		}
		if len(w.unjudged) != len(tt.want) {
			t.Errorf("%s: %q, want %q", name, w.unjudged, tt.want)
			continue
		}
		for i, part := range tt.want {
			if !strings.HasPrefix(w.unjudged[i], part) {
				t.Errorf("%s: %q, want %q", name, w.unjudged[i], part)
			}
		}
	}
}

// TestGuardSurvivesForgottenInstances: what an instance counted is forgotten an hour after its end, so that sums fall.
func TestGuardSurvivesForgottenInstances(t *testing.T) {
	const ms = time.Millisecond
	w, now, row := &watch{}, time.Now(), stageRow{Setting: Setting{Repository, 500}, version: 4}
	before, after := newCounters(nil), newCounters(nil)
	before.compared.Add(1_000_000)
	traffic(before, repository, 100_000, ms, 0)
	w.judge(now, Spec{MismatchBudget: 1}, row, fleet{tally: before.tally()})
	w.judge(now, Spec{MismatchBudget: 1}, row, fleet{tally: after.tally()})
	traffic(after, repository, 1000, ms, 10)
	if reason := w.judge(now, Spec{MismatchBudget: 1}, row, fleet{tally: after.tally()}); !strings.Contains(reason, "10 of 1000 calls failed") {
		t.Errorf("errors after the sums fell: %q", reason)
	}
	after.compare("ByID", false)
	if reason := w.judge(now, Spec{MismatchBudget: 1}, row, fleet{tally: after.tally()}); !strings.Contains(reason, "1 of 1 comparisons differ") {
		t.Errorf("a difference after the sums fell: %q", reason)
	}
}

func TestGuardMovesBackByItself(t *testing.T) {
	name := func(_ context.Context, _ db.Querier, i *item) error { i.Name = "wrong"; return nil }
	fail := func(context.Context, db.Querier, *item) error { return errors.New("column does not exist") }
	for reason, wrong := range map[string]func(context.Context, db.Querier, *item) error{
		"comparisons differ": name,
		"calls failed":       fail,
	} {
		t.Run(reason, func(t *testing.T) {
			f := newToy(t, Setting{Repository, 500}, func(c *Config, s *Spec) {
				if reason != "comparisons differ" {
					c.Sample, s.MismatchBudget = 0, 10_000
				}
			})
			if _, err := f.db.SQL().ExecContext(t.Context(), `INSERT INTO items SELECT i, 'name' FROM generate_series(2, 200) i`); err != nil {
				t.Fatal(err)
			}
			f.orm.wrong = wrong
			f.run(t)
			eventually(t, "the guard has moved the module back", func() bool {
				for id := range 200 {
					_, _ = f.byID(t.Context(), strconv.Itoa(id+1)) // in the cohort, one of the two fails
				}
				return f.users.Setting() == Setting{Shadow, Whole}
			})
			history, err := f.History(t.Context(), "users", 0, 1)
			if err != nil || history[0].Actor != Guard || !strings.Contains(history[0].Reason, reason) {
				t.Errorf("history %+v, %v", history, err)
			}
			if !f.log.contains("the guard moves a module back") {
				t.Error("the log does not say so")
			}
		})
	}
}
