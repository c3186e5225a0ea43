// Package webtest tests HTTP APIs over real connections, and holds every answer against the OpenAPI document.
package webtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
)

// RootKey is an API key with all scopes on servers of NewServer.
const RootKey = "sk_root_of_the_tests_0123456789abcdef"

// NewServer returns a server in test settings that modules can register on. Options change its settings and neighbours.
func NewServer(t testing.TB, d *db.DB, options ...func(*web.Config, *web.Deps)) *web.Server {
	t.Helper()
	log, err := telemetry.NewLogger("text", "warn", t.Output(), web.LogAttrs)
	if err != nil {
		t.Fatal(err)
	}
	cfg := web.Config{Addr: "127.0.0.1:0", RootKey: RootKey, Version: "test"}
	deps := web.Deps{
		Log: log, Metrics: prometheus.NewRegistry(), Checks: &web.Checks{}, DB: d, Limiter: web.NewMemoryLimiter(1000),
	}
	for _, option := range options {
		option(&cfg, &deps)
	}
	s, err := web.New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Key returns the configuration of an API key.
func Key(name, key string, scopes ...string) web.APIKey {
	sum := sha256.Sum256([]byte(key))
	return web.APIKey{Name: name, Hash: hex.EncodeToString(sum[:]), Scopes: scopes}
}

// Client calls a server. It fails the test on any answer that the OpenAPI document does not describe.
type Client struct {
	t          testing.TB
	url        string
	credential string
	http       *http.Client
	contract   *contract
}

// New serves s until the test ends, and returns a client without a credential. All operations must be registered.
func New(t testing.TB, s *web.Server) *Client {
	t.Helper()
	document, err := s.API().OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return newClient(t, srv.URL, srv.Client(), document)
}

// Dial returns a client without a credential of a server that runs elsewhere, whose OpenAPI document it reads first.
func Dial(t testing.TB, url string) *Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	connection := &http.Client{Transport: transport, Timeout: time.Minute}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := connection.Do(req)
	if err != nil {
		t.Fatalf("read the OpenAPI document: %v", err)
	}
	defer res.Body.Close()
	document, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("read the OpenAPI document: %v", err)
	}
	return newClient(t, url, connection, document)
}

func newClient(t testing.TB, url string, connection *http.Client, document []byte) *Client {
	t.Helper()
	contract, err := newContract(document)
	if err != nil {
		t.Fatalf("the OpenAPI document is not valid: %v", err)
	}
	return &Client{t: t, url: url, http: connection, contract: contract}
}

// As returns a client that sends credential: an API key or a session token.
func (c *Client) As(credential string) *Client {
	as := *c
	as.credential = credential
	return &as
}

// Do makes a call. A body that is a string, []byte or io.Reader is sent as it is, anything else but nil as JSON; header
// holds names and values in turn, and may override Content-Type.
func (c *Client) Do(method, path string, body any, header ...string) *Response {
	c.t.Helper()
	content, err := reader(body)
	if err != nil {
		c.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, content)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.credential != "" {
		req.Header.Set("Authorization", "Bearer "+c.credential)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s %s: reading the answer: %v", method, path, err)
	}
	out := &Response{t: c.t, call: method + " " + path, Status: res.StatusCode, Header: res.Header, Body: data}
	if err := c.contract.check(req, out); err != nil {
		c.t.Errorf("%s %s: %d is not as the OpenAPI document has it: %v\n%s", method, path, out.Status, err, data)
	}
	return out
}

func reader(body any) (io.Reader, error) {
	switch b := body.(type) {
	case nil:
		return nil, nil //nolint:nilnil // no body
	case string:
		return bytes.NewReader([]byte(b)), nil
	case []byte:
		return bytes.NewReader(b), nil
	case io.Reader:
		return b, nil
	}
	data, err := json.Marshal(body)
	return bytes.NewReader(data), err
}

// Response is an answer, read to its end.
type Response struct {
	t      testing.TB
	call   string
	Status int
	Header http.Header
	Body   []byte
}

// Want ends the test unless the answer has this status.
func (r *Response) Want(status int) *Response {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("%s: status %d, want %d\n%s", r.call, r.Status, status, r.Body)
	}
	return r
}

// WantProblem ends the test unless the answer is a problem with this status and code.
func (r *Response) WantProblem(status int, code string) web.Problem {
	r.t.Helper()
	r.Want(status)
	var p web.Problem
	r.JSON(&p)
	if p.Code != code {
		r.t.Fatalf("%s: code %q, want %q\n%s", r.call, p.Code, code, r.Body)
	}
	return p
}

// JSON decodes the body into v.
func (r *Response) JSON(v any) *Response {
	r.t.Helper()
	if err := json.Unmarshal(r.Body, v); err != nil {
		r.t.Fatalf("%s: %v\n%s", r.call, err, r.Body)
	}
	return r
}
