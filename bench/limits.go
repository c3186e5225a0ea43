//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The rows that have no ceiling, but a limit.

const (
	stormClients = 64
	stormLimit   = 2 // times the p99 in quiet
)

// storm is a row that compares the session checks' p99 while clients sign in with that when they do not: of so many checks
// a second, or of as many as can be where rate is zero. Those who sign in are others than those whose sessions are
// checked: who signs in is read again from PostgreSQL at the next check.
func storm(name string, rate int) row {
	call := "GET /v1/sessions/current while 64 clients sign in"
	if rate > 0 {
		call += fmt.Sprintf(" (%d a second)", rate)
	}
	return row{name, call, "cached, in process", func(ctx context.Context, b *bench) ([]result, error) { return b.storm(ctx, name, rate) }}
}

func (b *bench) storm(ctx context.Context, name string, rate int) ([]result, error) {
	s, database, err := b.fresh(ctx, users, nil)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	found, err := sessionChecks(ctx, b, s, database)
	if err != nil {
		return nil, err
	}
	signIns, err := b.signIns(ctx, database)
	if err != nil {
		return nil, err
	}
	checks := repeat(b.connections, found)
	if _, err := b.paced(s, checks, rate, b.window, &figures{}); err != nil { // to warm up
		return nil, err
	}
	var quiet, stormy figures
	var calm, worse []float64
	for round := range 2 * b.rounds {
		if (round+1)/2%2 == 0 { // quiet, storm, storm, quiet
			p99, err := b.paced(s, checks, rate, b.window, &quiet)
			if err != nil {
				return nil, err
			}
			calm = append(calm, float64(p99))
			continue
		}
		p99, err := b.stormy(s, checks, signIns, rate, &stormy)
		if err != nil {
			return nil, err
		}
		worse = append(worse, float64(p99))
	}
	quiet.finish()
	stormy.finish()
	times := ratios(worse, calm)
	row := result{
		Against: "the same in quiet", Server: &stormy, Ceiling: &quiet, Figure: times, Unit: "x the p99", Target: stormLimit, AtMost: true,
		Passed: times.Median <= stormLimit,
	}
	return []result{row}, b.profiled(s, name, func() error {
		_, err := b.stormy(s, checks, signIns, rate, &figures{})
		return err
	})
}

// signIns are sign-ins of users beyond those of sessionChecks.
func (b *bench) signIns(ctx context.Context, database string) ([][]byte, error) {
	if err := morePasswords(ctx, database, b.connections+stormClients); err != nil {
		return nil, err
	}
	requests := make([][]byte, stormClients)
	for i := range requests {
		body, err := json.Marshal(credentials(b.connections + i + 1))
		if err != nil {
			return nil, err
		}
		requests[i] = request(http.MethodPost, "/v1/sessions", "", string(body))
	}
	return requests, nil
}

// stormy measures the checks while clients sign in, and returns their p99.
func (b *bench) stormy(s *process, checks []plan, signIns [][]byte, rate int, sum *figures) (time.Duration, error) {
	blowing := b.blow(s, repeat(stormClients, signIns))
	p99, err := b.paced(s, checks, rate, b.window, sum)
	return p99, errors.Join(err, blowing())
}

// blow lets clients sign in for a window and a bit, and returns when they all do. What it returns waits for their end.
func (b *bench) blow(s *process, signIns []plan) (end func() error) {
	ended := make(chan error, 1)
	go func() { ended <- storming(s.addr, signIns, b.window+time.Second) }()
	time.Sleep(time.Second / 2)
	return func() error { return <-ended }
}

// paced measures the plans at so many requests a second, or at as many as can be for zero, and returns their p99.
func (b *bench) paced(s *process, plans []plan, rate int, d time.Duration, sum *figures) (time.Duration, error) {
	before, err := b.usage(s)
	if err != nil {
		return 0, err
	}
	l, err := drive(s.addr, plans, d, rate)
	if err != nil {
		return 0, err
	}
	if l.refused > 0 {
		return 0, fmt.Errorf("%d requests failed, such as %s", l.refused, l.last)
	}
	after, err := b.usage(s)
	sum.add(l, before, after)
	return l.percentile(99), err
}

func storming(addr string, plans []plan, d time.Duration) error {
	l, err := drive(addr, plans, d, 0)
	if err == nil && l.refused > 0 {
		err = fmt.Errorf("%d sign-ins failed, such as %s", l.refused, l.last)
	}
	if err == nil && len(l.latencies) == 0 {
		err = errors.New("nobody signed in")
	}
	if err == nil {
		fmt.Fprintf(os.Stderr, "  %.0f sign-ins a second, half of them within %s\n", l.perSecond(), l.percentile(50).Round(time.Millisecond))
	}
	return err
}

// depth compares the last page of a long list with the first.
func depth(ctx context.Context, b *bench) ([]result, error) {
	const limit = 200
	s, _, err := b.fresh(ctx, 1_000_000, nil)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	first := fmt.Sprintf("/v1/users?limit=%d", limit)
	last := first
	for {
		data, err := s.call(ctx, http.MethodGet, last, rootKey, nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Users      []json.RawMessage
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, err
		}
		if page.NextCursor == nil {
			break
		}
		last = first + "&cursor=" + *page.NextCursor
	}
	subjects := []*subject{
		{process: s, plans: repeat(b.connections, [][]byte{request(http.MethodGet, last, rootKey, "")})},
		{process: s, plans: repeat(b.connections, [][]byte{request(http.MethodGet, first, rootKey, "")})},
	}
	found, err := b.alternate(ctx, subjects)
	if err != nil {
		return nil, err
	}
	ratio := ratios(found[1], found[0])
	return []result{{
		Against: "the first page", Server: &subjects[0].sum, Ceiling: &subjects[1].sum, Figure: ratio, Unit: "x the time",
		Target: 1.2, AtMost: true, Passed: ratio.Median <= 1.2,
	}}, b.profiled(s, "depth", b.more(subjects[0]))
}

const importLines = 100_000

// imports measures users created per second by an import.
func imports(name string, settings map[string]string) func(context.Context, *bench) ([]result, error) {
	return func(ctx context.Context, b *bench) ([]result, error) {
		s, _, err := b.fresh(ctx, users, settings)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		before, err := b.usage(s)
		if err != nil {
			return nil, err
		}
		var each []float64
		for range b.rounds {
			started := time.Now()
			if err := s.importUsers(ctx, len(each)); err != nil {
				return nil, err
			}
			each = append(each, importLines/time.Since(started).Seconds())
		}
		after, err := b.usage(s)
		if err != nil {
			return nil, err
		}
		found := spreadOf(each)
		sum := &figures{PerSecond: found.Median}
		sum.add(&load{}, before, after)
		sum.each(b.rounds * importLines)
		return []result{{Server: sum, Figure: found, Unit: "users/s", Target: 20_000, Passed: found.Median >= 20_000}},
			b.profiled(s, name, func() error { return s.importUsers(ctx, len(each)) })
	}
}

// importUsers imports users who differ from those of other batches. All must have been created.
func (p *process) importUsers(ctx context.Context, batch int) error {
	var body bytes.Buffer
	for i := range importLines {
		fmt.Fprintf(&body, `{"email":"import-%d-%06d@example.com","name":"Imported %06d","metadata":{"plan":"team","seat":%d}}`+"\n",
			batch, i, i, i%100)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.addr+"/v1/users/import", &body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+rootKey)
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	created := 0
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if bytes.Contains(lines.Bytes(), []byte(`"status":"created"`)) {
			created++
		}
	}
	if created != importLines {
		return errors.Join(fmt.Errorf("%d of %d lines created a user", created, importLines), lines.Err())
	}
	return nil
}

// memory reads 100,000 users through the cache, and then measures the process' resident memory.
func memory(ctx context.Context, b *bench) ([]result, error) {
	const entries, limit = 100_000, 120
	s, database, err := b.fresh(ctx, entries, nil)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	found, err := userIDs(ctx, database, entries)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(found))
	for i, id := range found {
		requests[i] = request(http.MethodGet, "/v1/users/"+id, rootKey, "")
	}
	plans := repeat(b.connections, requests)
	for deadline := time.Now().Add(startTimeout); ; {
		l, err := drive(s.addr, plans, time.Second, 0)
		if err != nil {
			return nil, err
		}
		done := len(l.latencies) / len(plans)
		for i, p := range plans { // go on where this stopped
			plans[i] = append(p[done%len(p):], p[:done%len(p)]...)
		}
		cached, err := s.metric("strata_cache_process_entries")
		if err != nil {
			return nil, err
		}
		if cached >= 0.999*entries { // those that have expired are being read again
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("only %.0f entries are cached", cached)
		}
	}
	bytes, err := s.resident()
	mib := float64(bytes) / (1 << 20)
	return []result{{Figure: spreadOf([]float64{mib}), Unit: "MiB resident", Target: limit, AtMost: true, Passed: mib < limit}}, err
}

// starts measures how long the server takes from its start until it is ready, with its own PostgreSQL and data of before.
func starts(ctx context.Context, b *bench) ([]result, error) {
	settings := map[string]string{
		"STRATA_CONFIG": "", "DATABASE_URL": "", "REDIS_URL": "", "STRATA_STATE_DIR": filepath.Join(b.dir, "own"),
	}
	var each []float64
	for i := range b.rounds + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		started := time.Now()
		s, err := b.strata("", settings)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first makes the data directory
			each = append(each, time.Since(started).Seconds())
		}
		s.stop()
	}
	found := spreadOf(each)
	return []result{{Figure: found, Unit: "s", Target: 1, AtMost: true, Passed: found.Median < 1}}, nil
}
