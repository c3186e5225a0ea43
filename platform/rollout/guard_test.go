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
		"slow now and then": {Setting{Repository, 500}, 1, func(c *counters, window int) {
			traffic(c, direct, 1000, ms, 0)
			traffic(c, repository, 1000, time.Duration(1+window%2*100)*ms, 0)
		}, "", 0},
	}
	for name, tt := range tests {
		c, w, now := newCounters(nil), &watch{}, time.Now()
		spec, row := Spec{MismatchBudget: tt.budget}, stageRow{Setting: tt.at, version: 4}
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
