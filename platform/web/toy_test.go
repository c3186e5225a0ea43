package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const (
	readerKey  = "sk_reader"
	aliceToken = "st_alice"
	downToken  = "st_database_is_down"
)

var aliceID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

var errThingExists = errs.New(errs.Conflict, "thing_exists", "There is a thing of this name.")

// Thing is the resource of the toy API.
type Thing struct {
	ID       string      `json:"id"`
	Name     string      `json:"name"`
	Metadata web.RawJSON `json:"metadata"`
	Version  int64       `json:"version"`
}

// toy is an API with one operation of every sort.
type toy struct {
	mu     sync.Mutex
	things map[string]Thing
	calls  int
}

type createThing struct {
	Body struct {
		Name     string      `json:"name" minLength:"2" maxLength:"20"`
		Size     int32       `json:"size,omitempty" minimum:"1"`
		Colour   string      `json:"colour,omitempty" enum:"red,blue"`
		Tags     []string    `json:"tags,omitempty" maxItems:"3"`
		Parts    []thingPart `json:"parts,omitempty"`
		Metadata web.RawJSON `json:"metadata,omitempty"`
	}
}

type thingPart struct {
	Label string `json:"label"`
}

func (in *createThing) Check() error {
	if strings.HasPrefix(in.Body.Name, "evil") {
		return errs.ErrInvalid.With(errs.Field{Pointer: "/name", Code: "evil", Message: "Must not be evil."})
	}
	return nil
}

type thingOutput struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     Thing
}

type getThing struct {
	web.Conditional
	ID string `path:"id"`
}

type patchThing struct {
	web.Conditional
	ID   string `path:"id"`
	Body struct {
		Name web.Optional[string] `json:"name,omitzero" minLength:"2" nullable:"false"`
		Note web.Optional[string] `json:"note,omitzero" maxLength:"10"`
	}
}

type listThings struct {
	web.PageParams
	Name string `query:"name"`
}

type listOutput struct {
	web.PageHeaders
	Body struct {
		Things     []Thing `json:"things"`
		NextCursor *string `json:"next_cursor"`
	}
}

func (t *toy) routes(api *web.API) {
	web.Register(api, web.Operation{
		ID: "createThing", Method: http.MethodPost, Path: "/v1/things", Tag: "things", Summary: "Create a thing",
		Status: http.StatusCreated, Auth: web.Auth{Scope: "things:write"}, Errors: []int{http.StatusConflict},
	}, t.create)
	web.Register(api, web.Operation{
		ID: "getThing", Method: http.MethodGet, Path: "/v1/things/{id}", Tag: "things", Summary: "Get a thing",
		Auth: web.Auth{Scope: "things:read"},
	}, t.get)
	web.Register(api, web.Operation{
		ID: "patchThing", Method: http.MethodPatch, Path: "/v1/things/{id}", Tag: "things", Summary: "Change a thing",
		Auth: web.Auth{Scope: "things:write"},
	}, t.patch)
	web.Register(api, web.Operation{
		ID: "listThings", Method: http.MethodGet, Path: "/v1/things", Tag: "things", Summary: "List things",
		Auth: web.Auth{Scope: "things:read"},
	}, t.list)
}

func (t *toy) moreRoutes(api *web.API) {
	web.Register(api, web.Operation{
		ID: "signIn", Method: http.MethodPost, Path: "/v1/sign-in", Summary: "Sign in", RateLimit: "sign_in",
		Auth: web.Auth{Public: true}, Errors: []int{http.StatusUnauthorized},
	}, t.signIn)
	web.Register(api, web.Operation{
		ID: "getOwn", Method: http.MethodGet, Path: "/v1/users/{id}/things", Summary: "Things of a user",
		Auth: web.Auth{Scope: "things:read", Self: "id"},
	}, func(context.Context, *struct {
		ID string `path:"id"`
	},
	) (*struct{}, error) {
		return nil, nil
	})
	web.Register(api, web.Operation{
		ID: "whoAmI", Method: http.MethodGet, Path: "/v1/me", Summary: "The caller", Auth: web.Auth{Self: "*"},
	}, t.whoAmI)
	web.Register(api, web.Operation{
		ID: "fail", Method: http.MethodPost, Path: "/v1/failures/{kind}", Summary: "Fail", Auth: web.Auth{Any: true},
	}, t.fail)
	web.Register(api, web.Operation{
		ID: "addParts", Method: http.MethodPost, Path: "/v1/parts", Summary: "Add one part or many", Auth: web.Auth{Any: true},
	}, func(_ context.Context, in *struct{ Body web.OneOrMany[thingPart] }) (*partsOutput, error) {
		return &partsOutput{Body: in.Body}, nil
	})
	web.Register(api, web.Operation{
		ID: "importThings", Method: http.MethodPost, Path: "/v1/things/import", Summary: "Import things", Streams: true,
		Auth: web.Auth{Scope: "things:write"}, Answers: []string{web.NDJSON}, Record: importResult{},
	}, t.importThings)
	web.Register(api, web.Operation{
		ID: "exportThings", Method: http.MethodGet, Path: "/v1/things/export", Summary: "Export things", Streams: true,
		Auth: web.Auth{Scope: "things:read"}, Answers: []string{web.NDJSON, web.CSV}, Record: Thing{},
	}, t.export)
}

type partsOutput struct{ Body []thingPart }

type signInInput struct {
	Body struct {
		Password string `json:"password" maxLength:"64"`
	}
}

type tokenOutput struct {
	Body struct {
		Token string `json:"token"`
	}
}

func (t *toy) signIn(ctx context.Context, in *signInInput) (*tokenOutput, error) {
	if in.Body.Password == "wrong" {
		return nil, errs.New(errs.Unauthenticated, "invalid_credentials", "E-mail or password is wrong.")
	}
	web.Identify(ctx, aliceID, uuid.New())
	out := &tokenOutput{}
	out.Body.Token = "st_" + uuid.NewString()
	return out, nil
}

type callerOutput struct {
	Body struct {
		Kind      string `json:"kind"`
		ID        string `json:"id"`
		RequestID string `json:"request_id"`
		TraceID   string `json:"trace_id"`
		IP        string `json:"ip"`
		NoCache   bool   `json:"no_cache"`
		Kept      string `json:"kept"`
	}
}

func (t *toy) whoAmI(ctx context.Context, _ *struct{}) (*callerOutput, error) {
	caller, req := web.CallerFrom(ctx), web.RequestFrom(ctx)
	out := &callerOutput{}
	out.Body.Kind, out.Body.ID = caller.Kind.String(), caller.ID
	out.Body.RequestID, out.Body.TraceID, out.Body.IP, out.Body.NoCache = req.ID, req.TraceID, req.IP, web.NoCache(ctx)
	out.Body.Kept, _ = web.Kept(ctx).(string)
	return out, nil
}

// longWork is how long the call that takes long does.
const longWork = time.Second

// called returns how often a handler that counts was called.
func (t *toy) called() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.calls
}

// secret is what no answer and no log may show.
const secret = "hunter2-is-secret"

func (t *toy) fail(ctx context.Context, in *struct {
	Kind string `path:"kind"`
},
) (*struct{}, error) {
	switch in.Kind {
	case "panic":
		panic("boom " + secret)
	case "internal":
		return nil, errors.New("SELECT failed " + secret)
	case "unavailable":
		return nil, errs.ErrUnavailable.Wrap(errors.New(secret)).After(1500 * time.Millisecond)
	case "slow":
		<-ctx.Done()
		return nil, fmt.Errorf("query: %w", ctx.Err())
	case "long":
		t.mu.Lock()
		t.calls++
		t.mu.Unlock()
		select {
		case <-time.After(longWork):
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	case "once":
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.calls++; t.calls == 1 {
			return nil, errs.ErrBusy
		}
		return nil, nil
	}
	return nil, web.ErrNotFound
}

type importInput struct {
	web.NDJSONBody[thingPart]
}

type importResult struct {
	Line  int    `json:"line"`
	Label string `json:"label,omitempty"`
	Code  string `json:"code,omitempty"`
}

func (t *toy) importThings(_ context.Context, in *importInput) (*web.Stream, error) {
	return web.StreamNDJSON(func(_ context.Context, w *web.RecordWriter) error {
		for line, err := range in.Lines() {
			if err != nil {
				return err
			}
			result := importResult{Line: line.Number, Label: line.Value.Label}
			if line.Err != nil {
				result.Code = errs.From(line.Err).Code
			}
			if err := w.Write(result); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

type exportInput struct {
	Format string `query:"format" enum:"ndjson,csv" default:"ndjson"`
	Count  int    `query:"count"`
	Break  bool   `query:"break"`
}

func (t *toy) export(_ context.Context, in *exportInput) (*web.Stream, error) {
	if in.Format == "csv" {
		return web.StreamCSV([]string{"id", "name"}, func(_ context.Context, w *web.CSVWriter) error {
			return w.Write([]string{"1", "=cmd()"})
		}), nil
	}
	return web.StreamNDJSON(func(_ context.Context, w *web.RecordWriter) error {
		for i := range in.Count {
			if err := w.Write(Thing{ID: strconv.Itoa(i), Name: strings.Repeat("x", 100)}); err != nil {
				return err
			}
		}
		if in.Break {
			return errs.ErrUnavailable
		}
		return nil
	}), nil
}

func (t *toy) create(_ context.Context, in *createThing) (*thingOutput, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	for _, other := range t.things {
		if other.Name == in.Body.Name {
			return nil, errThingExists
		}
	}
	thing := Thing{ID: ids.Format("thing", ids.New()), Name: in.Body.Name, Metadata: in.Body.Metadata, Version: 1}
	t.things[thing.ID] = thing
	return &thingOutput{Location: "/v1/things/" + thing.ID, ETag: web.ETag(1), Body: thing}, nil
}

func (t *toy) get(_ context.Context, in *getThing) (*thingOutput, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	thing, ok := t.things[in.ID]
	if !ok {
		return nil, web.ErrNotFound
	}
	etag := web.ETag(thing.Version)
	if err := in.CheckRead(etag); err != nil {
		return nil, err
	}
	return &thingOutput{ETag: etag, Body: thing}, nil
}

func (t *toy) patch(_ context.Context, in *patchThing) (*thingOutput, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	thing, ok := t.things[in.ID]
	if !ok {
		return nil, web.ErrNotFound
	}
	if err := in.CheckVersion(thing.Version); err != nil {
		return nil, err
	}
	if in.Body.Name.Set {
		thing.Name = in.Body.Name.Value
		thing.Version++
	}
	t.things[in.ID] = thing
	return &thingOutput{ETag: web.ETag(thing.Version), Body: thing}, nil
}

func (t *toy) list(ctx context.Context, in *listThings) (*listOutput, error) {
	type filters struct{ Name string }
	start := 0
	if _, err := web.DecodeCursor(ctx, "things", filters{in.Name}, in.Cursor, &start); err != nil {
		return nil, err
	}
	cursor, err := web.EncodeCursor(ctx, "things", filters{in.Name}, start+in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listOutput{PageHeaders: web.NextPage(ctx, cursor)}
	out.Body.Things, out.Body.NextCursor = []Thing{}, &cursor
	return out, nil
}

// sessions knows one session.
type sessions struct{}

func (sessions) VerifySession(ctx context.Context, token string) (uuid.UUID, uuid.UUID, error) {
	switch token {
	case aliceToken:
		web.Keep(ctx, "alice's session")
		return aliceID, uuid.New(), nil
	case downToken:
		return uuid.Nil, uuid.Nil, errs.ErrUnavailable
	}
	return uuid.Nil, uuid.Nil, errs.New(errs.Unauthenticated, "session_invalid", "No such session.")
}

// fixture is a toy API that is served, and what it logs.
type fixture struct {
	*webtest.Client // with all scopes
	anyone          *webtest.Client
	server          *web.Server
	toy             *toy
	log             *lockedBuffer
}

func newFixture(t *testing.T, options ...func(*web.Config, *web.Deps)) *fixture {
	t.Helper()
	f := &fixture{toy: &toy{things: map[string]Thing{}}, log: &lockedBuffer{}}
	log, err := telemetry.NewLogger("json", "info", f.log, web.LogAttrs)
	if err != nil {
		t.Fatal(err)
	}
	options = append([]func(*web.Config, *web.Deps){func(c *web.Config, d *web.Deps) {
		c.Keys = []web.APIKey{webtest.Key("reader", readerKey, "things:read")}
		c.Limits = map[string]web.Limit{"sign_in": {Requests: 3, Per: time.Hour}}
		d.Log, d.Sessions = log, sessions{}
	}}, options...)
	f.server = webtest.NewServer(t, dbtest.Open(t, web.Migrations()), options...)
	f.toy.routes(f.server.API())
	f.toy.moreRoutes(f.server.API())
	f.anyone = webtest.New(t, f.server)
	f.Client = f.anyone.As(webtest.RootKey)
	return f
}

// create makes a thing and returns its path.
func (f *fixture) create(name string) string {
	return f.Do("POST", "/v1/things", map[string]any{"name": name}).Want(http.StatusCreated).Header.Get("Location")
}

// lockedBuffer is a bytes.Buffer that several goroutines write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
