package web_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

const ndjson = "application/x-ndjson"

func TestImport(t *testing.T) {
	f := newFixture(t)
	body := "{\"label\":\"a\"}\n\n{\"label\":1}\r\n{\"lable\":\"x\"}\n{bad\n{\"label\":\"\\u0000\"}\n{\"label\":\"last\"}"
	res := f.Do("POST", "/v1/things/import", body, "Content-Type", ndjson).Want(200)
	want := `{"line":1,"label":"a"}
{"line":3,"code":"validation_failed"}
{"line":4,"code":"validation_failed"}
{"line":5,"code":"json_malformed"}
{"line":6,"code":"validation_failed"}
{"line":7,"label":"last"}
`
	if got := string(res.Body); got != want || res.Header.Get("Content-Type") != ndjson {
		t.Errorf("the answer is %q\n%s, want\n%s", res.Header.Get("Content-Type"), got, want)
	}
	f.Do("POST", "/v1/things/import", body).WantProblem(415, "media_type_unsupported")
	long := `{"label":"` + strings.Repeat("x", web.MaxLine) + "\"}\n"
	longest := `{"label":"` + strings.Repeat("x", web.MaxLine-len(`{"label":""}`)) + `"}`
	for _, end := range []string{"\n", "\r\n", ""} {
		res = f.Do("POST", "/v1/things/import", "{\"label\":\"a\"}\n"+strings.Repeat(long, 3)+longest+end, "Content-Type", ndjson).Want(200)
		lines := strings.Split(string(res.Body), "\n")
		if len(lines) != 6 || strings.Join(lines[1:4], " ") !=
			`{"line":2,"code":"line_too_long"} {"line":3,"code":"line_too_long"} {"line":4,"code":"line_too_long"}` ||
			!strings.HasPrefix(lines[4], `{"line":5,"code":"validation_failed"}`) && !strings.HasPrefix(lines[4], `{"line":5,"label":"xxx`) {
			t.Errorf("lines that are too long: %.300q", res.Body)
		}
	}
	f.Do("POST", "/v1/things/import", strings.TrimSpace(long), "Content-Type", ndjson).Want(200)
	f.Do("POST", "/v1/things/import", "", "Content-Type", ndjson).Want(200)
}

// TestLargeImport: of more than one megabyte, and of so much that the answer has to begin before all is read.
func TestLargeImport(t *testing.T) {
	f := newFixture(t)
	for lines, label := range map[int]string{50_000: "somewhat long", 8_000: strings.Repeat("very long ", 300)} {
		var body bytes.Buffer
		for i := range lines {
			fmt.Fprintf(&body, "{\"label\":\"label number %d, %s\"}\n", i, label)
		}
		for range 2 {
			res := f.Do("POST", "/v1/things/import", body.Bytes(), "Content-Type", ndjson).Want(200)
			if got := bytes.Count(res.Body, []byte("\n")); got != lines {
				t.Errorf("%d results, want %d", got, lines)
			}
		}
	}
}

// TestRefusedImports: a client gets to see why, however much it still has to send, and nothing is left in the connection
// that its next request could trip over.
func TestRefusedImports(t *testing.T) {
	f := newFixture(t)
	line := "{\"label\":\"a\"}\n"
	for _, size := range []int{1, 1 << 10, 100 << 10, 2 << 20} {
		more := strings.Repeat(line, size/len(line)+1)
		for range 5 {
			f.Do("POST", "/v1/things/import?nobody=x", more, "Content-Type", ndjson).WantProblem(422, "validation_failed")
			f.Do("POST", "/v1/things/import?nobody=%zz", more, "Content-Type", ndjson).WantProblem(400, "query_malformed")
			f.Do("POST", "/v1/things/import", more, "Content-Type", "text/plain").WantProblem(415, "media_type_unsupported")
			f.Do("POST", "/v1/things/import", line+"\n", "Content-Type", ndjson).Want(200)
		}
	}
}

func TestExport(t *testing.T) {
	f := newFixture(t)
	res := f.Do("GET", "/v1/things/export?count=5000", nil).Want(200)
	if got := bytes.Count(res.Body, []byte("\n")); got != 5000 {
		t.Errorf("%d lines, want 5000", got)
	}
	csv := f.Do("GET", "/v1/things/export?format=csv", nil).Want(200)
	if got := string(csv.Body); got != "id,name\r\n1,'=cmd()\r\n" {
		t.Errorf("CSV is %q", got)
	}
	f.Do("GET", "/v1/things/export?count=1&break=true", nil).WantProblem(503, "unavailable")
}

// TestBrokenExportIsVisible: an answer that has begun cannot become a problem; it must not look whole either.
func TestBrokenExportIsVisible(t *testing.T) {
	f := newFixture(t)
	srv := httptest.NewServer(f.server.Handler())
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/v1/things/export?count=5000&break=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+webtest.RootKey)
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the broken answer was read to its end without an error")
	}
	srv.Close() // waits for the handler
	if !strings.Contains(f.log.String(), "stream broke off") {
		t.Errorf("the log does not tell:\n%s", f.log)
	}
}

func TestConditionalRequests(t *testing.T) {
	f := newFixture(t)
	path := f.create("one")
	for _, c := range []struct {
		header string
		status int
	}{
		{`"1"`, 304}, {`W/"1"`, 304}, {`"0", W/"1"`, 304}, {`*`, 304}, {`"2"`, 200}, {`1`, 200}, {`"`, 200},
	} {
		res := f.Do("GET", path, nil, "If-None-Match", c.header)
		if res.Status != c.status || res.Header.Get("Etag") != `"1"` {
			t.Errorf("If-None-Match %s: %d with ETag %s, want %d", c.header, res.Status, res.Header.Get("Etag"), c.status)
		}
		if c.status == 304 && len(res.Body) > 0 {
			t.Errorf("304 with a body")
		}
	}
	for _, c := range []struct {
		header string
		status int
		code   string
	}{
		{`"2"`, 412, "precondition_failed"},
		{`W/"1"`, 412, "precondition_failed"},
		{`1`, 400, "if_match_malformed"},
		{`"1" "2"`, 400, "if_match_malformed"},
		{`*`, 200, ""},
		{`"7" , "1"`, 200, ""},
	} {
		res := f.Do("PATCH", path, `{}`, "If-Match", c.header).Want(c.status)
		if c.code != "" {
			res.WantProblem(c.status, c.code)
		}
	}
	f.Do("GET", path, nil, "If-Match", `"2"`, "If-None-Match", `"1"`).WantProblem(412, "precondition_failed")
	f.Do("GET", path, nil, "If-Match", `"1"`, "If-None-Match", `"2"`).Want(200)
	f.Do("PATCH", path, `{"name":"two"}`, "If-Match", `"1"`).Want(200)
	f.Do("PATCH", path, `{"name":"three"}`, "If-Match", `"1"`).WantProblem(412, "precondition_failed")
}

func TestCursors(t *testing.T) {
	f := newFixture(t)
	var page struct {
		NextCursor string `json:"next_cursor"`
	}
	res := f.Do("GET", "/v1/things?limit=7&name=a%26b", nil).Want(200).JSON(&page)
	link := res.Header.Get("Link")
	if want := "</v1/things?cursor=" + page.NextCursor + `&limit=7&name=a%26b>; rel="next"`; link != want {
		t.Errorf("Link is %s, want %s", link, want)
	}
	f.Do("GET", strings.TrimPrefix(strings.Split(link, ">")[0], "<"), nil).Want(200)
	forged := []byte(page.NextCursor)
	forged[len(forged)-1] ^= 1
	for _, target := range []string{
		"/v1/things?name=other&cursor=" + page.NextCursor, // of other filters
		"/v1/things?name=a%26b&cursor=" + string(forged),
		"/v1/things?name=a%26b&cursor=" + page.NextCursor[:10],
		"/v1/things?cursor=!",
	} {
		p := f.Do("GET", target, nil).WantProblem(422, "cursor_invalid")
		if got := violations(p); len(got) != 1 || got[0] != "cursor_invalid in cursor" {
			t.Errorf("%s: violations %q", target, got)
		}
	}
}

func TestDocumentDescribesStreams(t *testing.T) {
	f := newFixture(t)
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody struct{ Content map[string]map[string]any }
			Responses   map[string]struct{ Content map[string]map[string]any }
			Security    []map[string][]string
		}
	}
	raw, err := f.server.API().OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	op := doc.Paths["/v1/things/import"]["post"]
	if op.RequestBody.Content[ndjson]["x-line"] == nil || op.Responses["200"].Content[ndjson]["x-line"] == nil {
		t.Errorf("import is described as %+v", op)
	}
	if patch := doc.Paths["/v1/things/{id}"]["patch"]; patch.RequestBody.Content["application/merge-patch+json"] == nil ||
		len(patch.Security) != 1 || patch.Security[0]["apiKey"][0] != "things:write" {
		t.Errorf("patch is described as %+v", patch)
	}
}
