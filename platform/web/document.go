package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Names of the security schemes in the OpenAPI document.
const (
	apiKeyScheme  = "apiKey"
	sessionScheme = "session"
)

// humaConfig is the frame of the OpenAPI document. huma serves neither it nor a reader: see pages.go.
func humaConfig(version string) huma.Config {
	cfg := huma.DefaultConfig("Strata", version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "", "", ""
	cfg.CreateHooks = nil // no $schema members and links in answers
	cfg.Info.Description = "Accounts for applications: users, sessions, preferences and an audit log."
	cfg.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		apiKeyScheme:  {Type: "http", Scheme: "bearer", Description: "An API key with the scope that the call names."},
		sessionScheme: {Type: "http", Scheme: "bearer", Description: "A session token (st_…) of the user concerned."},
	}
	return cfg
}

// operation is the huma operation of a route.
func (r *route) operation() huma.Operation {
	op := huma.Operation{
		OperationID:   r.op.ID,
		Method:        r.op.Method,
		Path:          r.op.Path,
		Summary:       r.op.Summary,
		Description:   r.op.Description,
		DefaultStatus: r.status,
		Security:      r.security(),
		RequestBody:   r.body,
		Responses:     r.responses(),
		Errors:        r.errors(),
	}
	if r.op.Tag != "" {
		op.Tags = []string{r.op.Tag}
	}
	if r.auth.Scope != "" {
		op.Extensions = map[string]any{"x-required-scope": r.auth.Scope}
	}
	if r.records {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{NDJSON: r.ndjson()}}
	}
	if r.idempotent {
		op.Parameters = append(op.Parameters, idempotencyParam)
	}
	return op
}

// security lists the credentials that will do; an empty requirement means none is needed.
func (r *route) security() []map[string][]string {
	var out []map[string][]string
	if r.auth.Public {
		out = append(out, map[string][]string{})
	}
	if r.auth.Any || r.auth.Scope != "" {
		scopes := []string{}
		if r.auth.Scope != "" {
			scopes = append(scopes, r.auth.Scope) // OpenAPI 3.1 lists roles for schemes other than OAuth
		}
		out = append(out, map[string][]string{apiKeyScheme: scopes})
	}
	if r.auth.Any || r.auth.Self != "" {
		out = append(out, map[string][]string{sessionScheme: {}})
	}
	return out
}

// errors lists the statuses of the problems that a call can meet.
func (r *route) errors() []int {
	// A query string can be malformed, and hold a parameter that is not known, anywhere.
	out := []int{
		http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnprocessableEntity, http.StatusInternalServerError,
		http.StatusServiceUnavailable,
	}
	if !r.auth.Public {
		out = append(out, http.StatusUnauthorized, http.StatusForbidden)
	}
	if strings.Contains(r.op.Path, "{") {
		out = append(out, http.StatusNotFound)
	}
	if r.body != nil || r.records {
		out = append(out, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusRequestTimeout)
	}
	if r.idempotent {
		out = append(out, http.StatusConflict)
	}
	if r.conditional {
		out = append(out, http.StatusPreconditionFailed)
	}
	if r.op.RateLimit != "" {
		out = append(out, http.StatusTooManyRequests)
	}
	out = append(out, r.op.Errors...)
	slices.Sort(out)
	return slices.Compact(out)
}

// responses describes what huma cannot derive from the output type.
func (r *route) responses() map[string]*huma.Response {
	out := map[string]*huma.Response{}
	if len(r.op.Answers) > 0 {
		success := &huma.Response{Description: http.StatusText(r.status), Content: map[string]*huma.MediaType{}}
		for _, mediaType := range r.op.Answers {
			success.Content[mediaType] = r.media(mediaType)
		}
		out[statusKey(r.status)] = success
	}
	if r.conditional && r.op.Method == http.MethodGet {
		out[statusKey(http.StatusNotModified)] = &huma.Response{
			Description: "The client holds the current representation (If-None-Match).",
			Headers:     map[string]*huma.Header{"ETag": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}
	}
	return out
}

// ndjson describes the request body of an operation that reads records.
func (r *route) ndjson() *huma.MediaType {
	return r.lines(r.recordType)
}

// media describes a body of success that is not JSON.
func (r *route) media(mediaType string) *huma.MediaType {
	if mediaType == NDJSON && r.op.Record != nil {
		return r.lines(reflect.TypeOf(r.op.Record))
	}
	return &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
}

// lines describes NDJSON, for which OpenAPI 3.1 has no schema of its own: a string, with its lines' schema beside it.
func (r *route) lines(record reflect.Type) *huma.MediaType {
	item := r.api.huma.OpenAPI().Components.Schemas.Schema(record, true, r.op.ID+"Line")
	return &huma.MediaType{
		Schema:     &huma.Schema{Type: huma.TypeString, Description: "One JSON value a line, as x-line has it."},
		Extensions: map[string]any{"x-line": item},
	}
}

// registered completes the document after huma has derived the rest.
func (r *route) registered() {
	r.api.names[ginPath(r.op.Path)] = r.op.Path // for requests that do not reach the operation
	if r.op.Creates {
		responses := r.api.huma.OpenAPI().Paths[r.op.Path].Put.Responses
		created := *responses[statusKey(r.status)]
		created.Description = http.StatusText(http.StatusCreated)
		responses[statusKey(http.StatusCreated)] = &created
	}
	if r.body == nil {
		return
	}
	media := r.body.Content[jsonType]
	r.schema = media.Schema
	checkDefaults(r.op.ID, r.types(), r.schema)
	if r.op.Method == http.MethodPatch {
		r.body.Content[mergePatchType] = media
	}
}

// ginPath is how the gin adapter spells a path.
func ginPath(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}

var idempotencyParam = &huma.Param{
	Name: "Idempotency-Key", In: "header",
	Description: "Makes it safe to repeat the call for 24 hours: it is done once, and the first answer is given again. " +
		"409 idempotency_in_flight: it is being worked on, try again. 409 idempotency_answer_lost: it was done, but the " +
		"instance that did it failed before it could answer.",
	Schema: &huma.Schema{Type: huma.TypeString, MinLength: ptr(1), MaxLength: ptr(maxIdempotencyKey)},
}

func ptr[T any](v T) *T { return &v }

// marshalDocument renders the document with sorted members and two spaces, ready to be committed.
func marshalDocument(doc *huma.OpenAPI) ([]byte, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(tree); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
