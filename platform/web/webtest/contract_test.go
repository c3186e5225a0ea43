package webtest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/web"
)

type recordOutput struct {
	Body struct {
		Size int `json:"size"`
	}
}

// TestContractNoticesDeviations: a checker that accepts everything would prove nothing.
func TestContractNoticesDeviations(t *testing.T) {
	s := NewServer(t, nil)
	web.Register(s.API(), web.Operation{ID: "get", Method: "GET", Path: "/size", Auth: web.Auth{Public: true}},
		func(context.Context, *struct{}) (*recordOutput, error) { return nil, nil })
	web.Register(s.API(), web.Operation{
		ID: "export", Method: "GET", Path: "/lines", Streams: true, Auth: web.Auth{Public: true},
		Answers: []string{web.NDJSON}, Record: recordOutput{}.Body,
	}, func(context.Context, *struct{}) (*web.Stream, error) { return nil, nil })
	document, err := s.API().OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	c, err := newContract(document)
	if err != nil {
		t.Fatal(err)
	}
	const problem = `{"type":"urn:x","title":"t","status":404,"detail":"d","code":"c","request_id":"r"}`
	for _, tc := range []struct {
		name, path, contentType, body string
		status                        int
		want                          string // part of the error; empty: none
	}{
		{"as described", "/size", "application/json", `{"size":1}`, 200, ""},
		{"wrong type", "/size", "application/json", `{"size":"1"}`, 200, "size"},
		{"member missing", "/size", "application/json", `{}`, 200, "size"},
		{"member too many", "/size", "application/json", `{"size":1,"more":2}`, 200, "more"},
		{"other status", "/size", "application/json", `{"size":1}`, 201, "status is not supported"},
		{"undocumented problem", "/size", "application/problem+json", problem, 404, "status is not supported"},
		{"plain error", "/size", "text/plain", "oops", 500, "Content-Type"},
		{"problem of another status", "/size", "application/problem+json", problem, 406, "problem"},
		{"unknown path", "/nothing", "application/problem+json", problem, 404, ""},
		{"unknown path answered", "/nothing", "application/json", `{}`, 200, "no matching"},
		{"lines", "/lines", web.NDJSON, "{\"size\":1}\n{\"size\":2}\n", 200, ""},
		{"wrong line", "/lines", web.NDJSON, "{\"size\":1}\n{\"size\":\"2\"}\n", 200, "line 2"},
		{"broken line", "/lines", web.NDJSON, "{\"size\":1}\n{\"si", 200, "line 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tc.path, nil)
			res := &Response{Status: tc.status, Body: []byte(tc.body), Header: http.Header{
				"Content-Type": {tc.contentType}, "X-Request-Id": {"r"},
			}}
			err := c.check(req, res)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q", err, tc.want)
			}
		})
	}
}
