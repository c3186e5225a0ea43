package rollout

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/strata-accounts/strata/platform/web"
)

// Routes registers the modules API: on the main listener, and on the admin listener too.
func (r *Registry) Routes(api *web.API) {
	read := web.Auth{Scope: "rollout:read"}
	missing := []int{http.StatusNotFound}
	web.Register(api, web.Operation{
		ID: "listModules", Method: http.MethodGet, Path: "/v1/modules", Tag: "modules", Summary: "List modules and their stages",
		Auth: read,
	}, r.list)
	web.Register(api, web.Operation{
		ID: "getModule", Method: http.MethodGet, Path: "/v1/modules/{name}", Tag: "modules", Summary: "Read a module's stage",
		Description: "With what all instances have counted since the stage came into force. The ETag is of the stage alone.",
		Auth:        read, Errors: missing,
	}, r.get)
	web.Register(api, web.Operation{
		ID: "moveModule", Method: http.MethodPatch, Path: "/v1/modules/{name}", Tag: "modules", Summary: "Move a module",
		Description: "One stage at a time, forward only when every live instance has acknowledged the move before. It is in " +
			"force on every instance within two seconds.",
		Auth: web.Auth{Scope: "rollout:write"}, Errors: []int{http.StatusNotFound, http.StatusConflict},
	}, r.patch)
	web.Register(api, web.Operation{
		ID: "listModuleMismatches", Method: http.MethodGet, Path: "/v1/modules/{name}/mismatches", Tag: "modules",
		Summary:     "List differences between the paths",
		Description: "A sample, newest first: where the answers differed, without values; the key is hashed.",
		Auth:        read, Errors: missing,
	}, r.mismatches)
	web.Register(api, web.Operation{
		ID: "listModuleHistory", Method: http.MethodGet, Path: "/v1/modules/{name}/history", Tag: "modules",
		Summary: "List a module's moves", Description: "Newest first.", Auth: read, Errors: missing,
	}, r.history)
}

// module is a Status as the API shows it.
type module struct {
	Name          string    `json:"name"`
	Stage         string    `json:"stage" enum:"direct,shadow,repository,cached"`
	Percent       float64   `json:"percent" doc:"Of the keys that the stage applies to."`
	Version       int64     `json:"version"`
	ChangedAt     time.Time `json:"changed_at"`
	Instances     instances `json:"instances"`
	Compared      uint64    `json:"compared" doc:"Reads compared with the other path."`
	Mismatched    uint64    `json:"mismatched" doc:"Comparisons with a difference that lasted."`
	Dropped       uint64    `json:"dropped" doc:"Comparisons not made: the queue was full, or a path did not answer."`
	Hits          hits      `json:"hits" doc:"Of the cache, as far as they have been compared with PostgreSQL."`
	Errors        uint64    `json:"errors" doc:"Calls that failed, on all paths."`
	Paths         []pathOf  `json:"paths" nullable:"false" doc:"The path that the stage leaves, and the one that it leads to."`
	SafeToAdvance advance   `json:"safe_to_advance"`
	Unjudged      []string  `json:"unjudged" nullable:"false" doc:"What the guard cannot judge at present, and why."`
}

type hits struct {
	Checked   uint64  `json:"checked"`
	Stale     uint64  `json:"stale" doc:"Those that PostgreSQL had not had for over a second."`
	StaleRate float64 `json:"stale_rate" doc:"The share of the stale; 0 without any compared."`
}

type instances struct {
	Acked int `json:"acked" doc:"Live instances at which the stage is in force."`
	Live  int `json:"live"`
}

type pathOf struct {
	Name   string  `json:"name" enum:"direct,repository,cached"`
	Calls  uint64  `json:"calls" doc:"In the stage shadow, those of the second path are the comparisons."`
	Errors uint64  `json:"errors"`
	P50    float64 `json:"p50_ms" doc:"Median latency of reads in milliseconds; 0 without any."`
	P99    float64 `json:"p99_ms" doc:"99th percentile of the latency of reads in milliseconds; 0 without any."`
}

type advance struct {
	Value   bool     `json:"value"`
	Reasons []string `json:"reasons" nullable:"false" doc:"What speaks against it."`
}

func viewOf(s Status) module {
	m := module{
		Name: s.Module, Stage: string(s.Stage), Percent: s.Percent(), Version: s.Version, ChangedAt: s.ChangedAt.UTC(),
		Instances: instances{s.Acked, s.Live}, Compared: s.Compared, Mismatched: s.Mismatched, Dropped: s.Dropped,
		Hits: hits{Checked: s.Checked, Stale: s.Stale}, Paths: []pathOf{},
		SafeToAdvance: advance{len(s.Advance) == 0, append([]string{}, s.Advance...)}, Unjudged: append([]string{}, s.Unjudged...),
	}
	if s.Checked > 0 {
		m.Hits.StaleRate = float64(s.Stale) / float64(s.Checked)
	}
	for _, p := range s.Paths {
		m.Errors += p.Errors
		m.Paths = append(m.Paths, pathOf{p.Name, p.Calls, p.Errors, milliseconds(p.P50), milliseconds(p.P99)})
	}
	return m
}

// milliseconds rounds to microseconds.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}

type listOutput struct {
	Body struct {
		Modules []module `json:"modules" nullable:"false"`
	}
}

func (r *Registry) list(ctx context.Context, _ *struct{}) (*listOutput, error) {
	statuses, err := r.Statuses(ctx)
	if err != nil {
		return nil, err
	}
	out := &listOutput{}
	out.Body.Modules = make([]module, len(statuses))
	for i, s := range statuses {
		out.Body.Modules[i] = viewOf(s)
	}
	return out, nil
}

type nameInput struct {
	Name string `path:"name" maxLength:"64" doc:"The module's name."`
}

type moduleOutput struct {
	ETag string `header:"ETag"`
	Body module
}

func (r *Registry) get(ctx context.Context, in *nameInput) (*moduleOutput, error) {
	s, err := r.Status(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	return &moduleOutput{web.ETag(s.Version), viewOf(s)}, nil
}

type patchInput struct {
	web.Conditional
	Name string `path:"name" maxLength:"64" doc:"The module's name."`
	Body struct {
		Stage   web.Optional[string]  `json:"stage,omitzero" nullable:"false" enum:"direct,shadow,repository,cached"`
		Percent web.Optional[float64] `json:"percent,omitzero" nullable:"false" minimum:"0" maximum:"100" doc:"Of the keys; two decimals count. Absent: stays as it is."`
		Reason  string                `json:"reason" minLength:"1" maxLength:"500" doc:"Why, for the history."`
	}
}

func (r *Registry) patch(ctx context.Context, in *patchInput) (*moduleOutput, error) {
	s, err := r.Status(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if err := in.CheckVersion(s.Version); err != nil {
		return nil, err
	}
	to := s.Setting
	if in.Body.Stage.Set {
		to.Stage = Stage(in.Body.Stage.Value)
	}
	if in.Body.Percent.Set {
		to = NewSetting(to.Stage, in.Body.Percent.Value)
	}
	err = r.Change(ctx, Change{
		Module: in.Name, To: to, Version: s.Version, Actor: web.CallerFrom(ctx).ID, Reason: in.Body.Reason,
	})
	if err != nil {
		return nil, err
	}
	return r.get(ctx, &nameInput{in.Name})
}

type limitInput struct {
	Name  string `path:"name" maxLength:"64" doc:"The module's name."`
	Limit int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many entries there are at most."`
}

// mismatch is a Mismatch as the API shows it.
type mismatch struct {
	Method      string       `json:"method"`
	KeyHash     string       `json:"key_hash" doc:"The first 8 bytes of SHA-256 over the module's name, a zero byte and the key."`
	Version     int64        `json:"version" doc:"Of the module's stage."`
	Answered    string       `json:"answered" doc:"The path that answered."`
	Compared    string       `json:"compared" doc:"The path that said something else."`
	Differences []Difference `json:"differences" nullable:"false"`
	SeenAt      time.Time    `json:"seen_at"`
}

type mismatchesOutput struct {
	Body struct {
		Mismatches []mismatch `json:"mismatches" nullable:"false"`
	}
}

func (r *Registry) mismatches(ctx context.Context, in *limitInput) (*mismatchesOutput, error) {
	list, err := r.Mismatches(ctx, in.Name, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &mismatchesOutput{}
	out.Body.Mismatches = make([]mismatch, len(list))
	for i, m := range list {
		out.Body.Mismatches[i] = mismatch{m.Method, m.KeyHash, m.Version, m.Answered, m.Compared, m.Differences, m.SeenAt.UTC()}
	}
	return out, nil
}

// move is a Record as the API shows it.
type move struct {
	Stage     string    `json:"stage" enum:"direct,shadow,repository,cached"`
	Percent   float64   `json:"percent"`
	Version   int64     `json:"version"`
	Actor     string    `json:"actor" doc:"The name of an API key, or what moved the module by itself: configuration, guard, openfeature."`
	Reason    string    `json:"reason"`
	ChangedAt time.Time `json:"changed_at"`
}

type historyInput struct {
	web.PageParams
	Name string `path:"name" maxLength:"64" doc:"The module's name."`
}

type historyOutput struct {
	web.PageHeaders
	Body struct {
		History    []move  `json:"history" nullable:"false"`
		NextCursor *string `json:"next_cursor" doc:"Leads to the next page; null on the last."`
	}
}

func (r *Registry) history(ctx context.Context, in *historyInput) (*historyOutput, error) {
	const listName = "module_history"
	var before int64
	if _, err := web.DecodeCursor(ctx, listName, in.Name, in.Cursor, &before); err != nil {
		return nil, err
	}
	list, err := r.History(ctx, in.Name, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	out := &historyOutput{}
	if len(list) > in.Limit {
		list = list[:in.Limit]
		cursor, err := web.EncodeCursor(ctx, listName, in.Name, list[in.Limit-1].Version)
		if err != nil {
			return nil, err
		}
		out.Body.NextCursor, out.PageHeaders = &cursor, web.NextPage(ctx, cursor)
	}
	out.Body.History = make([]move, len(list))
	for i, c := range list {
		out.Body.History[i] = move{string(c.Stage), c.Percent(), c.Version, c.Actor, c.Reason, c.ChangedAt.UTC()}
	}
	return out, nil
}
