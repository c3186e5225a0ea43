package web_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
)

const (
	rootKey   = "root-key-of-the-tests-0123456789abcdef"
	readerKey = "sk_reader"
	aliceTok  = "st_alice"
	downTok   = "st_database_is_down"
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
	if in.NotModified(etag) {
		return nil, web.NotModified(etag)
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

func (sessions) VerifySession(_ context.Context, token string) (uuid.UUID, uuid.UUID, error) {
	switch token {
	case aliceTok:
		return aliceID, uuid.New(), nil
	case downTok:
		return uuid.Nil, uuid.Nil, errs.ErrUnavailable
	}
	return uuid.Nil, uuid.Nil, errs.New(errs.Unauthenticated, "session_invalid", "No such session.")
}

func newServer(t testing.TB, log io.Writer) *web.Server {
	t.Helper()
	s, err := web.New(web.Config{RootKey: rootKey, Addr: "127.0.0.1:0"}, web.Deps{
		Log:     slog.New(slog.NewJSONHandler(log, nil)),
		Metrics: prometheus.NewRegistry(), Checks: &web.Checks{}, Sessions: sessions{},
	})
	if err != nil {
		t.Fatal(err)
	}
	(&toy{things: map[string]Thing{}}).routes(s.API())
	return s
}

func TestSmoke(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, &log)
	do := func(method, target, body string, hdr ...string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, target, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+rootKey)
		for i := 0; i < len(hdr); i += 2 {
			req.Header.Set(hdr[i], hdr[i+1])
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		t.Logf("%s %s %s\n-> %d %v\n%s", method, target, body, w.Code, w.Header(), w.Body)
		return w
	}
	w := do("POST", "/v1/things", `{"name":"one","metadata":{"a": 1}}`)
	loc := w.Header().Get("Location")
	do("GET", loc, "")
	do("GET", loc, "", "If-None-Match", `W/"1", "x"`)
	do("PATCH", loc, `{"name":null, "note":"too long for that", "x.y": 1}`)
	do("PATCH", loc, `{"name":"two"}`, "If-Match", `"1"`)
	do("PATCH", loc, `{"name":"two"}`, "If-Match", `"1"`)
	do("POST", "/v1/things", `{"name":"e","size":"big","colour":"green","tags":["a","a","b","c"],"parts":[{"lable":1}],"name":"\u0000"}`)
	do("POST", "/v1/things", `{"name":"e","size":0,"tags":["a","a","b","c"],"Name":"x"}`)
	do("POST", "/v1/things", `{"name":"evil","size":99999999999}`)
	do("GET", "/v1/things?limit=1000&curser=x&name=%00", "")
	do("GET", "/v1/things?limit=abc", "")
	do("GET", "/v1/things?limit=2", "")
	do("DELETE", "/v1/things?limit=2", "")
	do("HEAD", loc, "")
	do("GET", "/nope", "")
	do("GET", loc, "", "Accept", "text/html")
	w = do("GET", "/openapi.json", "")
	t.Log(log.String())
}
