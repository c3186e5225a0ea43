package web_test

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
)

func TestBodies(t *testing.T) {
	f := newFixture(t)
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for _, c := range []struct {
		name, body string
		status     int
		code       string
		violations []string // code at pointer, in any order
	}{
		{"empty", "", 400, "body_required", nil},
		{"cut off", `{"name":"ab`, 400, "json_malformed", nil},
		{"trailing", `{"name":"ab"} x`, 400, "json_malformed", nil},
		{"two values", `{"name":"ab"}{}`, 400, "json_malformed", nil},
		{"comment", `{"name":"ab"/**/}`, 400, "json_malformed", nil},
		{"leading zero", `{"name":"ab","size":01}`, 400, "json_malformed", nil},
		{"control character", "{\"name\":\"a\nb\"}", 400, "json_malformed", nil},
		{"invalid UTF-8", "{\"name\":\"a\xffb\"}", 400, "json_encoding", nil},
		{"lone surrogate", `{"name":"\ud800x"}`, 400, "json_encoding", nil},
		{"low surrogate", `{"name":"\udc00x"}`, 400, "json_encoding", nil},
		{"deep", `{"name":"ab","metadata":` + deep + `}`, 400, "json_too_deep", nil},
		{"not an object", `[]`, 422, "validation_failed", []string{"type at "}},
		{"NUL", `{"name":"ab\u0000"}`, 422, "validation_failed", []string{"not_text at /name"}},
		{"NUL in a member's name", `{"name":"ab","metadata":{"a\u0000":1}}`, 422, "validation_failed", []string{"not_text at /metadata/a\x00"}},
		{"duplicate", `{"name":"ab","name":"cd"}`, 422, "validation_failed", []string{"duplicate_member at /name"}},
		{"nested duplicate", `{"name":"ab","metadata":{"a/b":1,"a/b":2}}`, 422, "validation_failed", []string{"duplicate_member at /metadata/a~1b"}},
		{"other case", `{"Name":"ab"}`, 422, "validation_failed", []string{"unknown_member at /Name", "required at /name"}},
		{"null", `{"name":"ab","size":null}`, 422, "validation_failed", []string{"null at /size"}},
		{"required null", `{"name":null}`, 422, "validation_failed", []string{"type at /name"}},
		{"beyond int32", `{"name":"ab","size":3000000000}`, 422, "validation_failed", []string{"type at /size"}},
		{"beyond float64", `{"name":"ab","size":1e999}`, 422, "validation_failed", []string{"type at /size"}},
		{"fraction", `{"name":"ab","size":1.5}`, 422, "validation_failed", []string{"type at /size"}},
		{"the operation's own rule too", `{"name":"evil","size":0}`, 422, "validation_failed", []string{"evil at /name", "too_small at /size"}},
		{
			"all at once", `{"name":"` + secret + secret + `","colour":"` + secret + `","tags":["a","b","c","d"],"parts":[{"lable":"x"},3],"x.y":1}`,
			422, "validation_failed",
			[]string{
				"too_long at /name", "not_allowed at /colour", "too_many at /tags", "unknown_member at /parts/0/lable",
				"required at /parts/0/label", "type at /parts/1", "unknown_member at /x.y",
			},
		},
		{"fine", `{"name":"ab","size":10,"tags":[],"parts":[{"label":""}],"metadata":{"a":[1,{"b":null}],"` + "\u2028" + `":"\ud83d\ude00"}}`, 201, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := f.Do("POST", "/v1/things", c.body).Want(c.status)
			if strings.Contains(string(res.Body), secret) {
				t.Errorf("the answer repeats a rejected value:\n%s", res.Body)
			}
			if c.code == "" {
				return
			}
			got := violations(res.WantProblem(c.status, c.code))
			slices.Sort(got)
			slices.Sort(c.violations)
			if !slices.Equal(got, c.violations) {
				t.Errorf("violations\n%q, want\n%q", got, c.violations)
			}
		})
	}
}

// TestManyViolations: a body made of nothing but violations is answered with a part of them, and in proportionate memory.
func TestManyViolations(t *testing.T) {
	f := newFixture(t)
	var b strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&b, `"a.%d":0,`, i)
	}
	for name, body := range map[string]string{
		"unknown members": `{` + b.String() + `"name":"ab"}`,
		"nulls":           `{"name":"ab","tags":[null` + strings.Repeat(",null", 50_000) + `]}`,
		"a long name":     `{"name":"ab","` + strings.Repeat("a.", 100_000) + `":0}`,
	} {
		before := allocated()
		p := f.Do("POST", "/v1/things", body).WantProblem(422, "validation_failed")
		if len(p.Errors) == 0 || len(p.Errors) > 100 {
			t.Errorf("%s: %d violations are reported", name, len(p.Errors))
		}
		if took := allocated() - before; took > 256<<20 {
			t.Errorf("%s: %d MiB for a body of %d KiB", name, took>>20, len(body)>>10)
		}
	}
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestOneOrMany(t *testing.T) {
	f := newFixture(t)
	for body, want := range map[string]string{
		` {"label":"a"}`:                 `[{"label":"a"}]`,
		` [{"label":"a"},{"label":"b"}]`: `[{"label":"a"},{"label":"b"}]`,
	} {
		if got := strings.TrimSpace(string(f.Do("POST", "/v1/parts", body).Want(200).Body)); got != want {
			t.Errorf("%s was read as %s", body, got)
		}
	}
	for body, want := range map[string][]string{
		`{"label":1}`:               {"type at /label"},
		`[{"label":"a"},{"x":1}]`:   {"required at /1/label", "unknown_member at /1/x"},
		`[]`:                        {"too_few at "},
		`"a"`:                       {"type at "},
		`[{"label":"a","label":1}]`: {"duplicate_member at /0/label"},
	} {
		p := f.Do("POST", "/v1/parts", body).WantProblem(422, "validation_failed")
		if got := violations(p); !slices.Equal(got, want) {
			t.Errorf("%s: violations %q, want %q", body, got, want)
		}
	}
}

// violations renders the violations of a problem as "code at pointer" or "code in parameter".
func violations(p web.Problem) []string {
	var out []string
	for _, v := range p.Errors {
		if v.Pointer != nil {
			out = append(out, v.Code+" at "+*v.Pointer)
		} else {
			out = append(out, v.Code+" in "+v.Parameter)
		}
	}
	return out
}

func TestMediaTypes(t *testing.T) {
	f := newFixture(t)
	path := f.create("one")
	for _, c := range []struct {
		method, contentType string
		status              int
	}{
		{"POST", "application/json", 201},
		{"POST", "application/json; charset=UTF-8", 201},
		{"POST", "application/json; charset=latin1", 415},
		{"POST", "application/merge-patch+json", 415},
		{"POST", "application/x-www-form-urlencoded", 415},
		{"POST", "nonsense;;", 415},
		{"PATCH", "application/merge-patch+json", 200},
		{"PATCH", "application/json", 200},
		{"PATCH", "application/json-patch+json", 415},
	} {
		target := "/v1/things"
		if c.method == "PATCH" {
			target = path
		}
		body := map[string]string{"name": c.method + c.contentType[len(c.contentType)-6:]}
		if res := f.Do(c.method, target, body, "Content-Type", c.contentType); res.Status != c.status {
			t.Errorf("%s %s: status %d, want %d", c.method, c.contentType, res.Status, c.status)
		}
	}
	f.Do("POST", "/v1/things", `{}`, "Content-Encoding", "gzip").WantProblem(415, "content_encoding_unsupported")
	f.Do("GET", path, nil, "Accept", "text/html").WantProblem(406, "not_acceptable")
	f.Do("GET", path, nil, "Accept", "application/json;q=0").WantProblem(406, "not_acceptable")
	for _, accept := range []string{"*/*", "text/html, application/*;q=0.1", "application/problem+json, application/json", "json, */*"} {
		if res := f.Do("GET", path, nil, "Accept", accept).Want(200); res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("Accept %s: Content-Type %q", accept, res.Header.Get("Content-Type"))
		}
	}
}

func TestBodyLimit(t *testing.T) {
	f := newFixture(t)
	fill := func(size int) string {
		frame := `{"name":"ab","metadata":{"a":""}}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
	}
	f.Do("POST", "/v1/things", fill(1<<20)).Want(201)
	f.Do("POST", "/v1/things", fill(1<<20+1)).WantProblem(413, "body_too_large")
	// Without a Content-Length, only reading tells.
	f.Do("POST", "/v1/things", onlyReader{strings.NewReader(fill(1<<20 + 1))}).WantProblem(413, "body_too_large")
}

type onlyReader struct{ *strings.Reader }

func (r onlyReader) Len() {} // hides the length from net/http

func TestParameters(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		target     string
		status     int
		violations []string
	}{
		{"/v1/things?limit=0", 422, []string{"too_small in limit"}},
		{"/v1/things?limit=201&curser=" + secret, 422, []string{"unknown_parameter in curser", "too_large in limit"}},
		{"/v1/things?limit=" + secret, 422, []string{"type in limit"}},
		{"/v1/things?limit=99999999999999999999", 422, []string{"type in limit"}},
		{"/v1/things?name=a&name=b", 422, []string{"duplicate in name"}},
		{"/v1/things?name=%00", 422, []string{"not_text in name"}},
		{"/v1/things?name=%ff", 422, []string{"not_text in name"}},
		{"/v1/things?name=%zz", 400, nil},
		{"/v1/things?limit=", 200, nil},
		{"/v1/things/%00", 404, nil},
		{"/v1/things/%ff", 404, nil},
		{"/v1/things/thing_nope", 404, nil},
		{"/v1/things/export?format=" + secret, 422, []string{"not_allowed in format"}},
	} {
		res := f.Do("GET", c.target, nil)
		var p web.Problem
		if res.Status >= 400 {
			res.JSON(&p)
		}
		if got := violations(p); res.Status != c.status || !slices.Equal(got, c.violations) {
			t.Errorf("%s: %d %q, want %d %q", c.target, res.Status, got, c.status, c.violations)
		}
		if strings.Contains(string(res.Body), secret) {
			t.Errorf("%s: the answer repeats the value: %s", c.target, res.Body)
		}
	}
}

func TestRouting(t *testing.T) {
	f := newFixture(t)
	path := f.create("one")
	f.Do("GET", "/v1/nothing", nil).WantProblem(404, "route_not_found")
	f.Do("GET", "/v1/things/", nil).WantProblem(404, "route_not_found")
	res := f.Do("PUT", "/v1/things", nil)
	res.WantProblem(405, "method_not_allowed")
	if got := res.Header.Get("Allow"); got != "GET, POST, HEAD" {
		t.Errorf("Allow is %q", got)
	}
	if head := f.Do(http.MethodHead, path, nil).Want(200); head.Header.Get("Etag") != `"1"` || len(head.Body) != 0 {
		t.Errorf("HEAD: %v with %d bytes, want the ETag and no body", head.Header, len(head.Body))
	}
}
