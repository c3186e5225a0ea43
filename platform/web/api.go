// Package web serves the API: two listeners, and between them and the modules' handlers everything that is the same for
// all operations. An operation is registered with who may call it, its limits and its types (Register); from that follow
// authentication, strict decoding, problems (RFC 9457), conditional requests, pages, idempotency keys, streams, and the
// OpenAPI document.
//
// What every answer keeps to: errors are application/problem+json with a stable code and never repeat a rejected value
// or show an internal cause; ids in paths that cannot exist are 404, while in queries and bodies they are 422; unknown
// query parameters and members are 422; Cache-Control is no-store.
package web

import (
	"context"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/errs"
)

// API is where modules register their operations: one listener's routes and their OpenAPI document.
type API struct {
	server *Server
	engine *gin.Engine
	huma   huma.API          // knows the operations' types, and describes them; it serves nothing
	names  map[string]string // gin's route to the documented one, for logs and metrics
}

// Operation describes one call of the API.
type Operation struct {
	ID          string // camelCase, unique: "createUser"
	Method      string
	Path        string // "/v1/users/{id}"
	Tag         string // the module
	Summary     string
	Description string
	Status      int    // of success; 0 means 200, or 204 without a body
	Creates     bool   // a PUT that also answers 201, where it made what it names
	Auth        Auth   // who may call it
	Errors      []int  // statuses beyond those that follow from the input, Auth and RateLimit: 404, 409, …
	RateLimit   string // names one of Config.Limits; applied by client address
	// Streams lifts the body limit and the deadlines of the whole request; every chunk has its own. Idempotency-Key is
	// not honoured.
	Streams bool
	Answers []string // media types of success where it is not application/json: NDJSON, CSV
	Record  any      // a value of the type of one record of an NDJSON answer, for the OpenAPI document
}

// Checker is implemented by inputs with rules that their schema cannot express. The Fields of an Invalid error are
// reported together with the schema's violations.
type Checker interface {
	Check() error
}

// Register adds an operation. Before h runs, the caller has been authenticated and authorized, limits have been
// applied, and the input conforms to its schema; errors of h are rendered as problems. Register panics on a
// description that contradicts itself, since it runs at start.
func Register[I, O any](api *API, op Operation, h func(context.Context, *I) (*O, error)) {
	r := newRoute(api, op, reflect.TypeFor[I](), reflect.TypeFor[O]())
	huma.Register(api.huma, r.operation(), h)
	r.registered()
	r.run = func(c *gin.Context, req *request, body []byte) error {
		in := new(I)
		if err := r.decode(c, req, in, body); err != nil {
			return err
		}
		out, err := h(req, in)
		if err != nil {
			return err
		}
		return r.answer.write(c, r.status, reflect.ValueOf(out))
	}
	api.engine.Handle(op.Method, ginPath(op.Path), r.serve)
}

// check joins the rules of the body's schema with the input's own.
func (r *request) check(in any) error {
	fields := r.violations
	if c, ok := in.(Checker); ok {
		if err := c.Check(); err != nil {
			e := errs.From(err)
			if e.Kind != errs.Invalid || len(e.Fields) == 0 {
				return err
			}
			fields = joinFields(fields, e.Fields)
		}
	}
	return errs.Violated(fields)
}

// joinFields appends the violations of b for members that a has none for.
func joinFields(a, b []errs.Field) []errs.Field {
	type place struct{ pointer, param string }
	seen := map[place]bool{}
	for _, f := range a {
		seen[place{f.Pointer, f.Param}] = true
	}
	for _, f := range b {
		if !seen[place{f.Pointer, f.Param}] {
			a = append(a, f)
		}
	}
	return a
}

// OpenAPI returns the document as indented JSON, the same bytes for the same operations.
func (a *API) OpenAPI() ([]byte, error) { return marshalDocument(a.huma.OpenAPI()) }

// newAPI makes an API on a gin engine.
func newAPI(s *Server, engine *gin.Engine, version string) *API {
	return &API{server: s, engine: engine, huma: huma.NewAPI(humaConfig(version), describer{}), names: map[string]string{}}
}

// describer stands in for the router that huma would serve on: what it does for each request by reflection, with a
// dozen allocations, is done by bind and answer.
type describer struct{}

// Handle implements huma.Adapter.
func (describer) Handle(*huma.Operation, func(huma.Context)) {}

// ServeHTTP implements huma.Adapter.
func (describer) ServeHTTP(http.ResponseWriter, *http.Request) {}

// routeName returns the documented form of the route that gin matched.
func (a *API) routeName(c *gin.Context) string {
	if name, ok := a.names[c.FullPath()]; ok {
		return name
	}
	if path := c.FullPath(); path != "" {
		return path
	}
	return "unmatched"
}

func statusKey(status int) string { return strconv.Itoa(status) }

// defaultStatus is what success means for an operation that does not say.
func defaultStatus(op Operation, out reflect.Type) int {
	if op.Status != 0 {
		return op.Status
	}
	if _, hasBody := out.FieldByName("Body"); hasBody {
		return http.StatusOK
	}
	return http.StatusNoContent
}
