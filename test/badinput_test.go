//go:build unix

package test

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// marker stands in every rejected value, and echo at its beginning: an answer that holds it repeats what was rejected.
const (
	echo   = "Zq7"
	marker = echo + "REJECTED"
)

const clientError = 0 // any status from 400 to 499

// badInput sends what a server must refuse.
type badInput struct {
	*server
	sub *subject
}

// TestBadInput sends what nobody should to every call of the API: each time the sender is told so, nothing comes back of
// what was sent, and nothing breaks.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := deploy(t).start()
	b := badInput{s, s.newSubject()}
	b.sub.event = s.auditLog(t).events()[0].ID
	b.sub.etag = s.root.Do("GET", b.sub.path(), nil).Want(http.StatusOK).Header.Get("Etag")
	doc, bodies := s.document(), 0
	for _, o := range operations {
		method, path, _ := strings.Cut(o.call, " ")
		described := doc.Paths[path][strings.ToLower(method)]
		b.paths(o)
		b.queries(o)
		for _, p := range described.Parameters {
			b.parameter(o, p.Name, p.In, p.Schema.Type, p.Schema.Format)
		}
		b.reject(o, request{what: "Accept", status: http.StatusNotAcceptable, header: []string{"Accept", "text/html"}})
		if described.RequestBody != nil && !o.ndjson {
			bodies++
			b.forms(o)
			b.members(o)
			b.mediaTypes(o)
		}
	}
	if bodies < 10 {
		t.Errorf("only %d calls take a body", bodies)
	}
	b.importer()
	b.rules()
	b.routes()
	b.sub.wantLive(t)
	s.root.Do("GET", b.sub.path(), nil, "If-Match", b.sub.etag).Want(http.StatusOK) // as it was
}

// A request has something wrong with it. What is not given is as it should be.
type request struct {
	what   string // is wrong
	status int    // of the answer, or clientError
	path   string
	query  string
	body   any
	header []string
}

// reject sends a request that differs from the operation's call in what is given.
func (b badInput) reject(o operation, r request) {
	b.t.Helper()
	method, path := o.target(b.sub)
	query := b.sub.fill(o.query)
	if r.path != "" {
		path = r.path
	}
	if r.query != "" {
		query = r.query
	}
	if query != "" {
		path += "?" + query
	}
	if r.body == nil && o.body != "" {
		r.body = b.sub.fill(o.body)
	}
	if o.ndjson {
		r.header = append([]string{"Content-Type", "application/x-ndjson"}, r.header...)
	}
	caller := b.root
	if o.scope == "" && o.session != refused {
		caller = b.sub.Client
	}
	res := caller.Do(method, path, r.body, r.header...)
	if res.Status < 400 || res.Status >= 500 || r.status != clientError && res.Status != r.status {
		b.t.Errorf("%s, %s: %d, want %d\n%s", o.call, r.what, res.Status, r.status, res.Body)
	}
	if bytes.Contains(res.Body, []byte(echo)) || strings.Contains(strings.Join(slices.Concat(slices.Collect(maps.Values(res.Header))...), " "), echo) {
		b.t.Errorf("%s, %s: the answer repeats what was rejected: %v\n%s", o.call, r.what, res.Header, res.Body)
	}
}

// paths puts what is no id of the resource in the place of its id.
func (b badInput) paths(o operation) {
	b.t.Helper()
	if !strings.Contains(o.call, "{id}") {
		return
	}
	_, path := o.target(b.sub)
	_, id, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	id, _, _ = strings.Cut(id, "/")
	for _, other := range []string{
		marker, "user_" + marker, "evt_01h455vb4pex5vsknk084sn02q" + marker, "key_01h455vb4pex5vsknk084sn02q",
		"01890a5d-ac96-774b-bcce-b302099a8057", strings.ToUpper(id), id + "0", id[:len(id)-1], "%00", "%ff" + marker, "..%2f" + marker,
		strings.Repeat("x", 4000),
	} {
		b.reject(o, request{what: "id " + other, path: strings.Replace(path, id, other, 1)})
	}
}

func (b badInput) queries(o operation) {
	b.t.Helper()
	for what, query := range map[string]string{
		"unknown parameter": "nobody=" + marker, "bad escape": "nobody=%zz" + marker, "semicolon": "a=1;b=" + marker,
	} {
		b.reject(o, request{what: what, query: query})
	}
}

// parameter gives a query parameter, or a header, what it does not take.
func (b badInput) parameter(o operation, name, in, kind, format string) {
	b.t.Helper()
	switch name {
	case "If-Match":
		if !strings.HasPrefix(o.call, "GET ") {
			b.reject(o, request{what: "malformed If-Match", status: 400, header: []string{name, marker}})
			b.reject(o, request{what: "stale If-Match", status: 412, header: []string{name, `"` + marker + `"`}})
			b.reject(o, request{what: "weak If-Match", status: 412, header: []string{name, "W/" + b.sub.etag}})
			b.reject(o, request{what: "long If-Match", header: []string{name, strings.Repeat(`"`+marker+`",`, 500)}})
		}
	case "Idempotency-Key":
		b.reject(o, request{what: "long " + name, status: 400, header: []string{name, strings.Repeat(marker, 100)}})
		b.reject(o, request{what: "blank in " + name, status: 400, header: []string{name, marker + " " + marker}})
	}
	if in != "query" {
		return
	}
	values := []string{"\x00" + marker, "\xff" + marker}
	switch {
	case kind == "integer":
		values = append(values, marker, "-1", "1.5", "99999999999999999999")
	case kind == "boolean", format == "date-time", name == "cursor", name == "status", name == "format", name == "event":
		values = append(values, marker, "2026-02-30T00:00:00Z", "e30")
	}
	for _, v := range values {
		b.reject(o, request{what: name + "=" + v, query: url.Values{name: {v}}.Encode()})
		b.reject(o, request{what: name + " twice", query: url.Values{name: {v, v}}.Encode()})
	}
}

// forms sends bodies that are no JSON, or not what the call takes.
func (b badInput) forms(o operation) {
	b.t.Helper()
	sample := b.sub.fill(o.body)
	open := sample[:len(sample)-1]
	large := open + `,"nobody":"` + marker + strings.Repeat("x", 1<<20) + `"}`
	for what, r := range map[string]request{
		"empty":             {body: "", status: 400},
		"blank":             {body: " \n", status: 400},
		"truncated":         {body: open, status: 400},
		"two values":        {body: sample + sample, status: 400},
		"trailing text":     {body: sample + marker, status: 400},
		"trailing comma":    {body: open + ",}", status: 400},
		"comment":           {body: "/*" + marker + "*/" + sample, status: 400},
		"byte order mark":   {body: "\ufeff" + sample, status: 400},
		"UTF-16":            {body: "\xff\xfe{\x00}\x00", status: 400},
		"NUL byte":          {body: open + "\x00}", status: 400},
		"form":              {body: "email=" + marker, status: 400},
		"not a number":      {body: open + `,"nobody":NaN}`, status: 400},
		"huge number":       {body: open + `,"nobody":1e999999999}`},
		"number":            {body: "42"},
		"text":              {body: `"` + marker + `"`},
		"null":              {body: "null"},
		"array":             {body: `[["` + marker + `"]]`},
		"unknown member":    {body: open + `,"nobody":"` + marker + `"}`, status: 422},
		"empty name":        {body: open + `,"":"` + marker + `"}`, status: 422},
		"deep":              {body: strings.Repeat("[", 100_000), status: 400},
		"deep member":       {body: open + `,"nobody":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5001), status: 400},
		"too large":         {body: large, status: 413},
		"too large, length": {body: io.MultiReader(strings.NewReader(large)), status: 413}, // is not announced
	} {
		r.what = what
		b.reject(o, r)
	}
}

// members sends the call's own body with one member that is not as it should be.
func (b badInput) members(o operation) {
	b.t.Helper()
	sample := b.sub.fill(o.body)
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(sample), &all); err != nil {
		b.t.Fatal(err)
	}
	for name, value := range all {
		with := func(raw string) string {
			changed := maps.Clone(all)
			delete(changed, name)
			rest, err := json.Marshal(changed)
			if err != nil {
				b.t.Fatal(err)
			}
			return strings.Replace(`{"`+name+`":`+raw+","+string(rest[1:]), ",}", "}", 1)
		}
		others := []string{`["` + marker + `"]`, "42", "true"}
		if value[0] != '{' {
			others = append(others, `{"`+name+`":"`+marker+`"}`)
		} else {
			others = append(others, `"`+marker+`"`)
		}
		for _, other := range others {
			b.reject(o, request{what: name + " of another type", status: 422, body: with(other)})
		}
		b.reject(o, request{what: "duplicate " + name, status: 422, body: sample[:len(sample)-1] + `,"` + name + `":"` + marker + `"}`})
		b.reject(o, request{what: "NUL in " + name, status: 422, body: with(`"\u0000` + marker + `"`)})
		b.reject(o, request{what: "invalid UTF-8 in " + name, status: 400, body: with(`"` + "\xc3\x28" + marker + `"`)})
		b.reject(o, request{what: "half a surrogate in " + name, status: 400, body: with(`"\ud800` + marker + `"`)})
		b.reject(o, request{what: "control character in " + name, status: 400, body: with(`"` + "\x01" + marker + `"`)})
	}
}

func (b badInput) mediaTypes(o operation) {
	b.t.Helper()
	types := []string{
		"text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
		"application/json; charset=iso-8859-1", "application/" + marker, "/", "application/x-ndjson",
	}
	if !strings.HasPrefix(o.call, "PATCH ") {
		types = append(types, "application/merge-patch+json")
	}
	for _, mediaType := range types {
		b.reject(o, request{what: mediaType, status: 415, header: []string{"Content-Type", mediaType}})
	}
	b.reject(o, request{what: "compressed", status: 415, header: []string{"Content-Encoding", "gzip"}})
}

// importer sends a stream of lines that are wrong, each in its way: each is answered, and the good one is taken.
func (b badInput) importer() {
	b.t.Helper()
	lines := []string{
		`{"email":"` + marker + `"}`, `{"email":`, `[]`, `"` + marker + `"`, `{"email":"a@example.com","nobody":"` + marker + `"}`,
		`{"email":"a@example.com","password_hash":"` + marker + `"}`, `{"email":"a@example.com","name":"\u0000` + marker + `"}`,
		"{\"email\":\"\xff" + marker + `@example.com"}`, strings.Repeat("[", 10_000),
		b.sub.fill(`{"email":"<new>"}`),
	}
	res := b.root.Do("POST", "/v1/users/import", strings.Join(lines, "\n"), "Content-Type", "application/x-ndjson").Want(http.StatusOK)
	answers := strings.Split(strings.TrimSpace(string(res.Body)), "\n")
	if len(answers) != len(lines) || bytes.Contains(res.Body, []byte(echo)) {
		b.t.Fatalf("%d lines are answered with\n%s", len(lines), res.Body)
	}
	for i, answer := range answers {
		want := "invalid"
		if i == len(lines)-1 {
			want = "created"
		}
		if !strings.Contains(answer, `"status":"`+want+`"`) {
			b.t.Errorf("line %d is answered with %s, want %s", i+1, answer, want)
		}
	}
}

// rules sends what is well-formed, and breaks a rule of the module.
func (b badInput) rules() {
	b.t.Helper()
	for call, bodies := range map[string][]string{
		"POST /v1/users": {
			`{}`, `{"email":"` + marker + `"}`, `{"email":"<new>","password":"` + echo + `"}`,
			`{"email":"<new>","password":"` + strings.Repeat(marker, 30) + `"}`, `{"email":"<new>","password":"password"}`,
			`{"email":"<new>","name":"` + strings.Repeat(marker, 100) + `"}`,
			`{"email":"<new>","metadata":{"a":"` + strings.Repeat(marker, 2000) + `"}}`,
			`{"email":"` + strings.Repeat("x", 300) + `@example.com"}`,
		},
		"PATCH /v1/users/{id}": {`{"status":"` + marker + `"}`, `{"status":"deleted"}`, `{"email":null}`, `{"email":"` + marker + `"}`},
		"PUT /v1/users/{id}/password": {
			`{"password":"` + echo + `"}`, `{"password":"<password> 2","current_password":"` + marker + `"}`,
		},
		"POST /v1/audit-events": {
			`{}`, `{"action":"` + marker + `"}`, `{"action":"a.b","ip":"` + marker + `"}`, `[{"action":"a.b"},{"action":"` + marker + `"}]`,
			`{"action":"a.b","metadata":{"a":"` + strings.Repeat(marker, 2000) + `"}}`,
			"[" + strings.Repeat(`{"action":"a.b"},`, 1000) + `{"action":"a.b"}]`,
		},
		"PUT /v1/preference-definitions/{key}": {
			`{"schema":{"type":"` + marker + `"},"default":1}`, `{"schema":{"$ref":"https://` + marker + `/"},"default":1}`,
			`{"schema":{"pattern":"("},"default":"x"}`, `{"schema":{"type":"string"},"default":42}`,
		},
		"PATCH /v1/users/{id}/preferences":     {`{"theme":"` + marker + `"}`, `{"nobody":"` + marker + `"}`},
		"PUT /v1/users/{id}/preferences/{key}": {`{}`, `{"value":"` + marker + `"}`},
	} {
		i := slices.IndexFunc(operations, func(o operation) bool { return o.call == call })
		for _, body := range bodies {
			b.reject(operations[i], request{what: body[:min(len(body), 60)], status: 422, body: b.sub.fill(body)})
		}
	}
}

// routes asks for what is not there, and in ways that are not known.
func (b badInput) routes() {
	b.t.Helper()
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404},
		{"GET", "/v1", 404},
		{"GET", "/v1/" + marker, 404},
		{"GET", "/v1/users/", 404},
		{"GET", "//v1//users", 404},
		{"GET", "/v1/users/%2e%2e/users", 404},
		{"GET", "/v1/users/" + b.sub.id + "/" + marker, 404},
		{"GET", "/v2/users", 404},
		{"GET", "/debug/pprof/", 404},
		{"GET", "/metrics", 404},
		{"PUT", "/v1/users", 405},
		{"TRACE", "/v1/users", 405},
		{"BREW", "/v1/users", 405},
		{"POST", "/v1/users/" + b.sub.id, 405},
		{"DELETE", "/v1/audit-events/evt_01h455vb4pex5vsknk084sn02q", 405},
	} {
		b.reject(operation{call: tc.method + " " + tc.path}, request{what: "route", status: tc.status})
	}
}
