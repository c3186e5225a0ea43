//go:build unix

package test

import (
	"net/http"
	"testing"
	"time"

	"github.com/strata-accounts/strata/internal/servertest"
	"github.com/strata-accounts/strata/platform/db/dbtest"
)

var modules = []string{"users", "sessions", "auditlog", "preferences"}

// TestClimb moves all modules up the ladder and down again under two instances at work. On no rung, and on no step
// between two, does either say what is not so, and the rungs do not differ.
func TestClimb(t *testing.T) {
	t.Parallel()
	d := deploy(t, append(allAt("direct"), "REDIS_URL="+dbtest.Redis(t).URL, "STRATA_ROLLOUT__POLL_INTERVAL=50ms")...)
	left, right := d.start(), d.start()
	p := pair{t, []*server{left, right}, left.signUp()}
	climb := []string{"shadow", "repository", "cached", "repository", "shadow", "direct"}
	for i, stage := range climb {
		here, there := p.sides(i)
		for _, module := range modules {
			here.move(module, stage)
			p.rename(2)
		}
		p.rotate(2)
		there.awaitStage("users", stage)
	}
	p.suspend(1)
	for _, module := range modules {
		var moves struct{ History []struct{ Stage string } }
		left.root.Do("GET", "/v1/modules/"+module+"/history", nil).Want(http.StatusOK).JSON(&moves)
		if len(moves.History) < len(climb) || moves.History[0].Stage != "direct" || moves.History[3].Stage != "cached" {
			t.Errorf("the history of %s is %+v", module, moves.History)
		}
		var mismatches struct{ Mismatches []any }
		left.root.Do("GET", "/v1/modules/"+module+"/mismatches", nil).Want(http.StatusOK).JSON(&mismatches)
		if len(mismatches.Mismatches) > 0 {
			t.Errorf("the rungs of %s differ: %v", module, mismatches.Mismatches)
		}
	}
}

// move moves a module, as soon as all instances have taken over the move before.
func (s *server) move(module, stage string) {
	s.t.Helper()
	for deadline := time.Now().Add(servertest.StartTimeout); ; time.Sleep(50 * time.Millisecond) {
		res := s.root.Do("PATCH", "/v1/modules/"+module, map[string]any{"stage": stage, "reason": "It is time."})
		if res.Status == http.StatusOK {
			return
		}
		res.WantProblem(http.StatusConflict, "instances_not_caught_up")
		if time.Now().After(deadline) {
			s.t.Fatalf("%s cannot be moved to %s: %s", module, stage, res.Body)
		}
	}
}

// awaitStage waits until the module is known to be there on all instances.
func (s *server) awaitStage(module, stage string) {
	s.t.Helper()
	var status struct {
		Stage     string
		Instances struct{ Acked, Live int }
	}
	for deadline := time.Now().Add(servertest.StartTimeout); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		s.root.Do("GET", "/v1/modules/"+module, nil).Want(http.StatusOK).JSON(&status)
		if status.Stage == stage && status.Instances.Live == 2 && status.Instances.Acked == 2 {
			return
		}
	}
	s.t.Fatalf("%s is not at %s on both instances: %+v", module, stage, status)
}
