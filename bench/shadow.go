//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const shadowLimit = 1.05 // times the p99 of direct

// shadow is a row that holds the p99 of so many reads a second, all of them compared in the background, against that of the
// same reads while none is. Its second line is the same for direct, measured twice: how much of the first one is noise.
func shadow(name string, rate int) row {
	return row{name, fmt.Sprintf("GET /v1/users/{id} (%d a second)", rate), "shadow", func(ctx context.Context, b *bench) ([]result, error) {
		return b.shadow(ctx, name, rate)
	}}
}

func (b *bench) shadow(ctx context.Context, name string, rate int) ([]result, error) {
	s, database, err := b.fresh(ctx, users, map[string]string{"STRATA_USERS__STAGE": "direct", "STRATA_ROLLOUT__POLL_INTERVAL": "50ms"})
	if err != nil {
		return nil, err
	}
	defer s.stop()
	requests, err := userReads("")(ctx, b, s, database)
	if err != nil {
		return nil, err
	}
	plans := repeat(b.connections, requests)
	for _, stage := range []string{"shadow", "direct"} { // to warm up
		if _, err := b.staged(ctx, s, stage, plans, rate, &figures{}); err != nil {
			return nil, err
		}
	}
	var sums [3]figures
	var p99 [3][]float64
	for range b.rounds {
		for i, stage := range []string{"direct", "shadow", "direct"} {
			found, err := b.staged(ctx, s, stage, plans, rate, &sums[i])
			if err != nil {
				return nil, err
			}
			p99[i] = append(p99[i], float64(found))
		}
	}
	for i := range sums {
		sums[i].finish()
	}
	against := func(what string, i int) result {
		found := ratios(p99[i], p99[0])
		return result{
			Against: what, Server: &sums[i], Ceiling: &sums[0], Figure: found, Unit: "x the p99", Target: shadowLimit, AtMost: true,
			Passed: found.Median <= shadowLimit,
		}
	}
	return []result{against("the same in direct", 1), against("direct, measured twice", 2)},
		b.profiled(s, name, func() error {
			_, err := b.staged(ctx, s, "shadow", plans, rate, &figures{})
			return err
		})
}

// staged moves the module users, measures the plans, and returns their p99. The measurement is void where a hundredth of
// what was to be compared was not.
func (b *bench) staged(ctx context.Context, s *process, stage string, plans []plan, rate int, sum *figures) (time.Duration, error) {
	if err := s.moveUsers(ctx, stage); err != nil {
		return 0, err
	}
	already := len(sum.latencies)
	p99, err := b.paced(s, plans, rate, b.window, sum)
	if err != nil || stage != "shadow" {
		return p99, err
	}
	reads := len(sum.latencies) - already
	var state stageState
	for deadline := time.Now().Add(10 * time.Second); state.Compared < reads-reads/100; time.Sleep(50 * time.Millisecond) {
		if state, err = s.users(ctx, http.MethodGet, nil); err != nil {
			return 0, err
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("of %d reads %d were compared, and %d dropped", reads, state.Compared, state.Dropped)
		}
	}
	if state.Mismatched > 0 {
		return 0, fmt.Errorf("%d of %d comparisons differ", state.Mismatched, state.Compared)
	}
	return p99, nil
}

// stageState is what is read of a module.
type stageState struct {
	Stage                         string
	Compared, Dropped, Mismatched int
	Instances                     struct{ Acked int }
}

// users reads or moves the module users.
func (p *process) users(ctx context.Context, method string, body any) (state stageState, err error) {
	data, err := p.call(ctx, method, "/v1/modules/users", rootKey, body)
	if err == nil {
		err = json.Unmarshal(data, &state)
	}
	return state, err
}

// moveUsers moves the module users to a stage, and returns when the server is there.
func (p *process) moveUsers(ctx context.Context, stage string) error {
	state, err := p.users(ctx, http.MethodGet, nil)
	if err != nil || state.Stage == stage {
		return err
	}
	state, err = p.users(ctx, http.MethodPatch, map[string]any{"stage": stage, "percent": 100, "reason": "to be measured"})
	for err == nil && state.Instances.Acked == 0 {
		time.Sleep(50 * time.Millisecond)
		state, err = p.users(ctx, http.MethodGet, nil)
	}
	return err
}
