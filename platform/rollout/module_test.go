package rollout

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/uuid"
)

// fixed returns a module at a setting.
func fixed(t testing.TB, name string, s Setting) *Module {
	t.Helper()
	m, err := newModule(name, Spec{Initial: s, Methods: []string{"ByID"}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDecisionFollowsTheStage(t *testing.T) {
	tests := []struct {
		stage           Stage
		outside, inside path
	}{
		{Direct, direct, direct},
		{Shadow, direct, direct},
		{Repository, direct, repository},
		{Cached, repository, cached},
	}
	for _, tt := range tests {
		if got := fixed(t, "users", Setting{tt.stage, 0}).decide("key"); got != (decision{path: tt.outside}) {
			t.Errorf("%s at 0 %%: %+v", tt.stage, got)
		}
		if got := fixed(t, "users", Setting{tt.stage, Whole}).decide("key"); got != (decision{tt.inside, true}) {
			t.Errorf("%s at 100 %%: %+v", tt.stage, got)
		}
	}
}

func TestCohortHasItsSizeAndOnlyGrows(t *testing.T) {
	const keys = 100_000
	m := fixed(t, "users", Setting{Repository, 0})
	before := make([]bool, keys)
	for _, reach := range []int{1, 100, 500, 5_000, Whole} {
		m.set(Setting{Repository, reach}, 1)
		in := 0
		for i := range keys {
			now := m.decide(fmt.Sprintf("key-%d", i)).cohort
			if before[i] && !now {
				t.Fatalf("reach %d: key-%d has left the cohort", reach, i)
			}
			if before[i] = now; now {
				in++
			}
		}
		want := float64(keys) * float64(reach) / Whole
		if math.Abs(float64(in)-want) > 5*math.Sqrt(want)+1 {
			t.Errorf("reach %d: %d of %d keys, want about %.0f", reach, in, keys, want)
		}
	}
}

func TestCohortsOfModulesAreIndependent(t *testing.T) {
	a, b := fixed(t, "users", Setting{Repository, Whole / 2}), fixed(t, "sessions", Setting{Repository, Whole / 2})
	same := 0
	for i := range 10_000 {
		key := fmt.Sprintf("key-%d", i)
		if a.decide(key).cohort == b.decide(key).cohort {
			same++
		}
	}
	if same < 4_500 || same > 5_500 {
		t.Errorf("%d of 10,000 keys fall alike; want about half", same)
	}
}

// The places of keys are kept by nobody: another hash would move users between paths with a new release.
func TestBucketIsStable(t *testing.T) {
	m := fixed(t, "users", Setting{Direct, Whole})
	got := [3]int{bucket(m.salt, ""), bucket(m.salt, "a"), bucket(m.salt, "0190a3c4-7b1e-7cc3-98a5-0242ac120002")}
	if want := [3]int{6075, 6522, 4704}; got != want {
		t.Errorf("buckets %v, want %v", got, want)
	}
}

func TestPercent(t *testing.T) {
	for percent, reach := range map[float64]int{0: 0, 0.01: 1, 0.29: 29, 5: 500, 33.33: 3333, 100: Whole} {
		s := NewSetting(Shadow, percent)
		if s.Reach != reach || s.Percent() != percent {
			t.Errorf("%v %%: reach %d, back as %v; want %d", percent, s.Reach, s.Percent(), reach)
		}
	}
}

func TestDecisionAllocatesNothing(t *testing.T) {
	m, key := fixed(t, "users", Setting{Repository, 500}), uuid.NewString()
	if n := testing.AllocsPerRun(1000, func() { m.decide(key) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	m, key := fixed(b, "users", Setting{Repository, 500}), uuid.NewString()
	b.ReportAllocs()
	for b.Loop() {
		m.decide(key)
	}
}
