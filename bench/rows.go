//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
)

// A row is one line of the report, or a line for each ceiling.
type row struct {
	name    string // what -run matches
	call    string
	stage   string
	measure func(ctx context.Context, b *bench) ([]result, error)
}

// A ceiling is what the server is held against, and the share of its requests per second that the server must reach.
type ceiling struct {
	name   string
	memory bool // it answers from memory; else it does as the server does
	share  float64
}

func bare(share float64) ceiling { return ceiling{"bare gin handler", true, share} }

// A scenario is what a row with ceilings measures.
type scenario struct {
	settings map[string]string
	prepare  func(ctx context.Context, b *bench, s *process, database string) ([][]byte, error) // returns the requests
	against  []ceiling
}

const (
	users     = 20_000 // in the database of most rows
	requested = 1024   // of those are asked for
)

var (
	redisOnly  = map[string]string{"STRATA_CACHE__ENTRIES": "0"}
	repository = map[string]string{"STRATA_USERS__STAGE": "repository"}
)

// rows are the report, in its order.
func rows() []row {
	return []row{
		compared("session", "GET /v1/sessions/current", "cached, in process",
			scenario{prepare: sessionChecks, against: []ceiling{bare(0.70)}}),
		compared("user", "GET /v1/users/{id}", "cached, in process",
			scenario{prepare: userReads(""), against: []ceiling{bare(0.75)}}),
		compared("preferences", "GET /v1/users/{id}/preferences", "cached, in process",
			scenario{prepare: preferenceReads, against: []ceiling{bare(0.70)}}),
		compared("session-redis", "GET /v1/sessions/current", "cached, Redis only",
			scenario{settings: redisOnly, prepare: sessionChecks, against: []ceiling{bare(0.35)}}),
		compared("user-repository", "GET /v1/users/{id}", "repository",
			scenario{settings: repository, prepare: userReads(""), against: []ceiling{bare(0.18), {"gin + pgx, same select", false, 0.6}}}),
		compared("update", "PATCH /v1/users/{id}", "cached",
			scenario{prepare: userUpdates, against: []ceiling{{"gin + pgx, same statements", false, 0.7}}}),
		compared("page", "GET /v1/users (50 of 20,000)", "cached",
			scenario{prepare: pages, against: []ceiling{bare(0.06)}}),
		storm("storm", 0),
		storm("storm-paced", 1000),
		shadow("shadow", 1000),
		shadow("shadow-busy", 2000),
		{"depth", "GET /v1/users (the last page of 1,000,000)", "cached", depth},
		{"import", "POST /v1/users/import (100,000 lines)", "cached", imports("import", nil)},
		{"import-direct", "POST /v1/users/import (100,000 lines)", "direct", imports("import-direct", map[string]string{"STRATA_USERS__STAGE": "direct"})},
		{"memory", "100,000 users in the process tier", "cached, in process", memory},
		{"start", "start with an existing data directory, until /readyz", "", starts},
	}
}

// compared is a row with ceilings.
func compared(name, call, stage string, sc scenario) row {
	return row{name, call, stage, func(ctx context.Context, b *bench) ([]result, error) { return b.compare(ctx, name, sc) }}
}

// compare measures a server against its ceilings, each on a database of its own.
func (b *bench) compare(ctx context.Context, name string, sc scenario) ([]result, error) {
	server, database, err := b.fresh(ctx, users, sc.settings)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	requests, err := sc.prepare(ctx, b, server, database)
	if err != nil {
		return nil, err
	}
	body, err := bodyOf(server.addr, requests[0])
	if err != nil {
		return nil, err
	}
	own, err := b.copySeed(ctx, users)
	if err != nil {
		return nil, err
	}
	low, err := b.ceiling(body, own)
	if err != nil {
		return nil, err
	}
	defer low.stop()

	subjects := []*subject{{process: server, plans: repeat(b.connections, requests)}}
	for _, c := range sc.against {
		same := requests
		if c.memory {
			same = [][]byte{request(http.MethodGet, "/memory", "", "")}
		}
		subjects = append(subjects, &subject{process: low, plans: repeat(b.connections, same)})
	}
	found, err := b.alternate(ctx, subjects)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(sc.against))
	for i, c := range sc.against {
		ratio := ratios(found[0], found[i+1])
		results[i] = result{
			Against: c.name, Server: &subjects[0].sum, Ceiling: &subjects[i+1].sum, Bytes: len(body),
			Figure: ratio, Unit: "of the ceiling", Target: c.share, Passed: ratio.Median >= c.share,
		}
	}
	return results, b.profiled(server, name, b.more(subjects[0]))
}

func sessionChecks(ctx context.Context, b *bench, s *process, database string) ([][]byte, error) {
	tokens, err := signIn(ctx, s, database, b.connections)
	if err != nil {
		return nil, err
	}
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = request(http.MethodGet, "/v1/sessions/current", token, "")
	}
	return requests, nil
}

// userReads returns the reads of the first users, or of something under them.
func userReads(under string) func(context.Context, *bench, *process, string) ([][]byte, error) {
	return func(ctx context.Context, _ *bench, _ *process, database string) ([][]byte, error) {
		found, err := userIDs(ctx, database, requested)
		requests := make([][]byte, len(found))
		for i, id := range found {
			requests[i] = request(http.MethodGet, "/v1/users/"+id+under, rootKey, "")
		}
		return requests, err
	}
}

// preferenceReads are of users who have set one of four preferences.
func preferenceReads(ctx context.Context, b *bench, s *process, database string) ([][]byte, error) {
	for key, definition := range map[string]any{
		"theme":         map[string]any{"schema": map[string]any{"enum": []string{"light", "dark"}}, "default": "light"},
		"language":      map[string]any{"schema": map[string]any{"type": "string"}, "default": "en"},
		"page_size":     map[string]any{"schema": map[string]any{"type": "integer"}, "default": 50},
		"notifications": map[string]any{"schema": map[string]any{"type": "object"}, "default": map[string]any{"email": true, "push": false}},
	} {
		if _, err := s.call(ctx, http.MethodPut, "/v1/preference-definitions/"+key, rootKey, definition); err != nil {
			return nil, err
		}
	}
	found, err := userIDs(ctx, database, requested)
	if err != nil {
		return nil, err
	}
	for _, id := range found {
		path := "/v1/users/" + id + "/preferences/theme"
		if _, err := s.call(ctx, http.MethodPut, path, rootKey, map[string]string{"value": "dark"}); err != nil {
			return nil, err
		}
	}
	return userReads("/preferences")(ctx, b, s, database)
}

// userUpdates change the name of each user, and change it back: each connection has users of its own.
func userUpdates(ctx context.Context, _ *bench, _ *process, database string) ([][]byte, error) {
	found, err := userIDs(ctx, database, requested)
	var requests [][]byte
	for _, name := range []string{"Ada Lovelace", "Grace Hopper"} {
		for _, id := range found {
			requests = append(requests, request(http.MethodPatch, "/v1/users/"+id, rootKey, fmt.Sprintf(`{"name":%q}`, name)))
		}
	}
	return requests, err
}

func pages(context.Context, *bench, *process, string) ([][]byte, error) {
	return [][]byte{request(http.MethodGet, "/v1/users?limit=50", rootKey, "")}, nil
}
