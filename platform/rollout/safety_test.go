package rollout

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestSafeToAdvance(t *testing.T) {
	all := map[string]uint64{"ByID": 20_000, "List": 10_000}
	proven := tally{Compared: 30_000, Methods: all}
	with := func(change func(*tally)) tally {
		c := proven
		c.Methods = maps.Clone(all)
		change(&c)
		return c
	}
	tests := map[string]struct {
		at          Setting
		tally       tally
		live, acked int
		want        []string // a part of each reason
	}{
		"direct needs no proof":   {Setting{Direct, Whole}, tally{}, 1, 1, nil},
		"proven in shadow":        {Setting{Shadow, Whole}, proven, 2, 2, nil},
		"proven in repository":    {Setting{Repository, 500}, proven, 2, 2, nil},
		"nobody follows":          {Setting{Shadow, Whole}, proven, 0, 0, []string{"0 of 0 live"}},
		"one behind":              {Setting{Shadow, Whole}, proven, 3, 2, []string{"2 of 3 live"}},
		"nothing compared":        {Setting{Shadow, Whole}, tally{}, 1, 1, []string{"0 of 30000", "ByID, List"}},
		"one too few":             {Setting{Shadow, Whole}, with(func(c *tally) { c.Compared-- }), 1, 1, []string{"29999 of 30000"}},
		"one mismatch":            {Setting{Shadow, Whole}, with(func(c *tally) { c.Mismatched = 1 }), 1, 1, []string{"1 of 30000 comparisons differ"}},
		"a method not exercised":  {Setting{Shadow, Whole}, with(func(c *tally) { c.Methods["List"] = 0 }), 1, 1, []string{"Not compared yet: List."}},
		"few dropped":             {Setting{Shadow, Whole}, with(func(c *tally) { c.Dropped = 300 }), 1, 1, nil},
		"too many dropped":        {Setting{Shadow, Whole}, with(func(c *tally) { c.Dropped = 304 }), 1, 1, []string{"304 of 30304"}},
		"few hits checked":        {Setting{Cached, 500}, tally{Checked: 99}, 1, 1, []string{"99 of 100 cache hits"}},
		"hits checked":            {Setting{Cached, 500}, tally{Checked: 100}, 1, 1, nil},
		"a stale hit":             {Setting{Cached, 500}, tally{Checked: 100, Stale: 1}, 1, 1, []string{"1 of 100 cache hits were stale"}},
		"arrived":                 {Setting{Cached, Whole}, tally{}, 1, 1, []string{"no next stage"}},
		"arrived, and one behind": {Setting{Cached, Whole}, tally{}, 2, 1, []string{"1 of 2 live", "no next stage"}},
	}
	for name, tt := range tests {
		m, err := newModule("users", Spec{Initial: tt.at, Methods: slices.Sorted(maps.Keys(all))})
		if err != nil {
			t.Fatal(err)
		}
		r := &Registry{cfg: Defaults()}
		got := r.against(m, stageRow{Setting: tt.at}, fleet{tt.tally, tt.live, tt.acked})
		if len(got) != len(tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
			continue
		}
		for i, part := range tt.want {
			if !strings.Contains(got[i], part) {
				t.Errorf("%s: %q, want %q", name, got[i], part)
			}
		}
	}
}

func TestStatusAddsUpTheInstances(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	other := newInstance(t, f.db, Setting{Shadow, Whole}, func(_ *Config, s *Spec) { s.Methods = MethodsOf[Reader]() })
	for _, m := range []*Module{f.users, other.users} {
		m.counters.compare("ByID", true)
		m.counters.compare("ByID", false)
		m.counters.reads[direct].observe(1000, nil)
	}
	other.users.counters.check(true)
	for _, i := range []instance{f.instance, other} {
		if err := i.poll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := f.Status(t.Context(), "users")
	if err != nil {
		t.Fatal(err)
	}
	if s.Live != 2 || s.Acked != 2 || s.Compared != 4 || s.Mismatched != 2 || s.Checked != 1 || s.Stale != 1 || s.Version != 1 {
		t.Errorf("status %+v", s)
	}
	if len(s.Paths) != 2 || s.Paths[0].Name != "direct" || s.Paths[0].Calls != 2 || s.Paths[0].P99 == 0 {
		t.Errorf("paths %+v", s.Paths)
	}
	f.mustMove(t, Setting{Direct, Whole})
	if s, err = f.Status(t.Context(), "users"); err != nil || s.Compared != 0 || s.Acked != 1 || len(s.Paths) != 1 {
		t.Errorf("status after a move: %+v, %v", s, err)
	}
}

func TestMetrics(t *testing.T) {
	f := newToy(t, Setting{Shadow, Whole})
	f.run(t)
	f.mustRead(t, "1")
	f.counted(t, 1)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector{f.Registry})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			values[family.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"strata_rollout_stage": 1, "strata_rollout_reach_ratio": 1, "strata_rollout_compared_total": 1,
		"strata_rollout_mismatched_total": 0, "strata_rollout_call_duration_seconds": 2, "strata_rollout_table_lost": 0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s: %v (%v), want %v", name, got, ok, want)
		}
	}
}
