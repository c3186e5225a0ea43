package auditlog

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

// Routes registers the module's operations; http_log.go has those of the sealed log.
func (m *Module) Routes(api *web.API) {
	h := handlers{m.Service, m.Log}
	web.Register(api, web.Operation{
		ID: "listAuditEvents", Method: http.MethodGet, Path: "/v1/audit-events", Tag: "auditlog", Summary: "List audit events",
		Description: "Newest first. A session sees the events whose actor or target is its user.",
		Auth:        web.Auth{Scope: "audit:read", Self: "*"},
	}, h.list)
	web.Register(api, web.Operation{
		ID: "getAuditEvent", Method: http.MethodGet, Path: "/v1/audit-events/{id}", Tag: "auditlog", Summary: "Get an audit event",
		Auth: web.Auth{Scope: "audit:read"}, Errors: []int{http.StatusNotFound},
	}, h.get)
	web.Register(api, web.Operation{
		ID: "recordAuditEvents", Method: http.MethodPost, Path: "/v1/audit-events", Tag: "auditlog", Summary: "Record audit events",
		Description: "One event or an array of at most 1000, of which all are recorded or none; the answer has the same form. " +
			"Recorded events cannot be changed or removed. recorded_by tells them from Strata's own.",
		Status: http.StatusCreated, Auth: web.Auth{Scope: "audit:write"},
	}, h.record)
	web.Register(api, web.Operation{
		ID: "exportAuditEvents", Method: http.MethodGet, Path: "/v1/audit-events/export", Tag: "auditlog",
		Summary: "Export audit events",
		Description: "Newest first, from the moment of the request backwards. In CSV, cells that a spreadsheet would run as a formula " +
			"start with an apostrophe.",
		Auth: web.Auth{Scope: "audit:read"}, Streams: true, Answers: []string{web.NDJSON, web.CSV}, Record: event{},
	}, h.export)
	h.logRoutes(api)
}

type handlers struct {
	service *Service
	log     *Log
}

// event is an Event as the API shows it.
type event struct {
	ID         string      `json:"id" example:"evt_01h455vb4pex5vsknk084sn02q"`
	OccurredAt time.Time   `json:"occurred_at"`
	Action     string      `json:"action" example:"user.updated"`
	Actor      reference   `json:"actor" doc:"Who did it."`
	Target     *reference  `json:"target,omitempty" doc:"What or whom it was done to; absent where there is none."`
	IP         string      `json:"ip" doc:"The client's address; empty where there was none, or its owner has been erased."`
	UserAgent  string      `json:"user_agent" doc:"The client's User-Agent; empty like ip."`
	RequestID  string      `json:"request_id"`
	RecordedBy string      `json:"recorded_by" doc:"The API key with which an application recorded the event; empty for Strata's own."`
	Metadata   web.RawJSON `json:"metadata" doc:"In Strata's own events the names of what changed, never values."`
}

type reference struct {
	Type string `json:"type" maxLength:"50" example:"user"`
	ID   string `json:"id,omitempty" maxLength:"200" example:"user_01h455vb4pex5vsknk084sn02q"`
}

func viewOf(e Event) event {
	v := event{
		ID: ids.Format(IDPrefix, e.ID), OccurredAt: e.OccurredAt.UTC(), Action: e.Action, Actor: reference(e.Actor),
		IP: e.IP, UserAgent: e.UserAgent, RequestID: e.RequestID, RecordedBy: e.RecordedBy, Metadata: web.RawJSON(e.Metadata),
	}
	if e.Target != (Ref{}) {
		v.Target = (*reference)(&e.Target)
	}
	return v
}

// Selection is embedded in the inputs that select events. It is exported because huma fills no other embedded struct.
type Selection struct {
	Actor  string    `query:"actor" maxLength:"251" doc:"The actor's id, or type:id. An id that holds a colon needs its type." example:"user_01h455vb4pex5vsknk084sn02q"`
	Action string    `query:"action" maxLength:"100" doc:"The whole action." example:"user.updated"`
	Target string    `query:"target" maxLength:"251" doc:"The target's id, or type:id, as for actor."`
	From   time.Time `query:"from" doc:"Events from this moment on."`
	To     time.Time `query:"to" doc:"Events before this moment."`
}

func (s Selection) filter() Filter {
	f := Filter{Actor: parseRef(s.Actor), Action: s.Action, Target: parseRef(s.Target)}
	if !s.From.IsZero() {
		f.From = &s.From
	}
	if !s.To.IsZero() {
		f.To = &s.To
	}
	return f
}

// parseRef reads an id, or type:id.
func parseRef(s string) Ref {
	if kind, id, ok := strings.Cut(s, ":"); ok && typePattern.MatchString(kind) {
		return Ref{Type: kind, ID: id}
	}
	return Ref{ID: s}
}

type listInput struct {
	web.PageParams
	Selection
}

type listOutput struct {
	web.PageHeaders
	Body struct {
		Events     []event `json:"events" nullable:"false"`
		NextCursor *string `json:"next_cursor" nullable:"true" doc:"The cursor of the next page; null on the last."`
	}
}

func (h handlers) list(ctx context.Context, in *listInput) (*listOutput, error) {
	f := in.filter()
	if caller := web.CallerFrom(ctx); caller.Kind == web.Session {
		f.Subject = caller.ID
	}
	filters := f // what the cursor is bound to: everything but the page
	var after Position
	more, err := web.DecodeCursor(ctx, "audit-events", filters, in.Cursor, &after)
	if err != nil {
		return nil, err
	}
	if more {
		f.After = &after
	}
	f.Limit = in.Limit + 1 // one more tells whether there is a next page
	events, err := h.service.List(ctx, f)
	if err != nil {
		return nil, err
	}
	out := &listOutput{}
	if len(events) > in.Limit {
		events = events[:in.Limit]
		last := events[in.Limit-1]
		cursor, err := web.EncodeCursor(ctx, "audit-events", filters, Position{last.OccurredAt, last.ID})
		if err != nil {
			return nil, err
		}
		out.Body.NextCursor, out.PageHeaders = &cursor, web.NextPage(ctx, cursor)
	}
	out.Body.Events = make([]event, len(events))
	for i, e := range events {
		out.Body.Events[i] = viewOf(e)
	}
	return out, nil
}

type getInput struct {
	ID string `path:"id" doc:"The event's id."`
}

type eventOutput struct{ Body event }

func (h handlers) get(ctx context.Context, in *getInput) (*eventOutput, error) {
	id, err := ids.Parse(IDPrefix, in.ID)
	if err != nil {
		return nil, err
	}
	e, err := h.service.ByID(ctx, id)
	if err != nil {
		return nil, err
	}
	return &eventOutput{viewOf(e)}, nil
}

// newEvent is what an application may say about an event. When it occurred is the database's to say.
type newEvent struct {
	Action    string      `json:"action" maxLength:"100" pattern:"^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)+$" example:"invoice.paid"`
	Actor     *reference  `json:"actor,omitempty" doc:"Who did it; without it, the API key."`
	Target    *reference  `json:"target,omitempty"`
	IP        string      `json:"ip,omitempty" doc:"The address of whoever did it. Erased with the user who is the actor."`
	UserAgent string      `json:"user_agent,omitempty" maxLength:"512"`
	RequestID string      `json:"request_id,omitempty" maxLength:"128" doc:"Without it, the id of this request."`
	Metadata  web.RawJSON `json:"metadata,omitempty" doc:"At most 16 KiB. It stays for good: leave personal data out."`
}

// event makes what is recorded. The key's name stands in every event that an application records, so that none can pass
// for Strata's own.
func (n newEvent) event(ctx context.Context) Event {
	caller, request := web.CallerFrom(ctx), web.RequestFrom(ctx)
	e := Event{
		Action: n.Action, Actor: Ref{caller.Kind.String(), caller.ID}, IP: n.IP, UserAgent: n.UserAgent, RequestID: n.RequestID,
		RecordedBy: caller.ID, Metadata: json.RawMessage(n.Metadata),
	}
	if n.Actor != nil {
		e.Actor = Ref(*n.Actor)
	}
	if n.Target != nil {
		e.Target = Ref(*n.Target)
	}
	if e.RequestID == "" {
		e.RequestID = request.ID
	}
	return e
}

type recordInput struct{ Body newEvents }

// newEvents is one event, or an array of them.
type newEvents struct {
	web.OneOrMany[newEvent]
	many bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *newEvents) UnmarshalJSON(data []byte) error {
	n.many = strings.HasPrefix(strings.TrimLeft(string(data[:min(len(data), 64)]), " \t\r\n"), "[")
	return n.OneOrMany.UnmarshalJSON(data)
}

// Check implements web.Checker with the rules that the schema does not express.
func (in *recordInput) Check() error {
	if n := len(in.Body.OneOrMany); n > MaxBatch {
		return errs.ErrInvalid.With(errs.Field{Code: "too_many", Message: fmt.Sprintf("Must have at most %d events.", MaxBatch)})
	}
	var fields []errs.Field
	for i, n := range in.Body.OneOrMany {
		e := n.event(context.Background())
		if n.Actor == nil {
			e.Actor = Ref{Type: "api_key"} // who it is is not known yet
		}
		at := ""
		if in.Body.many {
			at = fmt.Sprintf("/%d", i)
		}
		fields = append(fields, e.normalize(at)...)
	}
	return errs.Violated(fields)
}

type recordOutput struct{ Body recorded }

// recorded is the answer in the form of the request: one event, or an array.
type recorded struct {
	events []event
	many   bool
}

// MarshalJSON implements json.Marshaler.
func (r recorded) MarshalJSON() ([]byte, error) {
	if r.many {
		return json.Marshal(r.events)
	}
	return json.Marshal(r.events[0])
}

// Schema implements huma.SchemaProvider.
func (recorded) Schema(r huma.Registry) *huma.Schema { return web.OneOrMany[event]{}.Schema(r) }

func (h handlers) record(ctx context.Context, in *recordInput) (*recordOutput, error) {
	events := make([]Event, len(in.Body.OneOrMany))
	for i, n := range in.Body.OneOrMany {
		events[i] = n.event(ctx)
	}
	stored, err := h.service.Record(ctx, events...)
	if err != nil {
		return nil, err
	}
	out := &recordOutput{recorded{many: in.Body.many}}
	for _, e := range stored {
		out.Body.events = append(out.Body.events, viewOf(e))
	}
	return out, nil
}

type exportInput struct {
	Format string `query:"format" enum:"ndjson,csv" default:"ndjson"`
	Selection
}

// csvHeader names the columns of an export.
var csvHeader = []string{
	"id", "occurred_at", "action", "actor_type", "actor_id", "target_type", "target_id", "ip", "user_agent", "request_id",
	"recorded_by", "metadata",
}

func (h handlers) export(_ context.Context, in *exportInput) (*web.Stream, error) {
	f := in.filter()
	if in.Format == "csv" {
		return web.StreamCSV(csvHeader, func(ctx context.Context, w *web.CSVWriter) error {
			return h.service.Export(ctx, f, func(e Event) error {
				return w.Write([]string{
					ids.Format(IDPrefix, e.ID), e.OccurredAt.UTC().Format(time.RFC3339Nano), e.Action, e.Actor.Type, e.Actor.ID,
					e.Target.Type, e.Target.ID, e.IP, e.UserAgent, e.RequestID, e.RecordedBy, string(e.Metadata),
				})
			})
		}), nil
	}
	return web.StreamNDJSON(func(ctx context.Context, w *web.RecordWriter) error {
		return h.service.Export(ctx, f, func(e Event) error { return w.Write(viewOf(e)) })
	}), nil
}

// parseEvent reads the id of an event in a query parameter.
func parseEvent(param, s string) (uuid.UUID, error) {
	id, err := ids.Parse(IDPrefix, s)
	if err != nil {
		return id, errs.ErrInvalid.With(errs.Field{Param: param, Code: ids.ErrMalformed.Code, Message: "Must be the id of an audit event."})
	}
	return id, nil
}
