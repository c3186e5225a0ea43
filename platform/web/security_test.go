package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/strata-accounts/strata/platform/ids"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

func TestAuthorization(t *testing.T) {
	f := newFixture(t)
	own := "/v1/users/" + ids.Format("user", aliceID) + "/things"
	foreign := "/v1/users/" + ids.Format("user", ids.New()) + "/things"
	for _, c := range []struct {
		name, credential, method, path string
		status                         int
		code, challenge                string
	}{
		{"no credential", "", "GET", "/v1/things", 401, "unauthenticated", `Bearer realm="strata"`},
		{"unknown key", "sk_nope", "GET", "/v1/things", 401, "credential_invalid", `error="invalid_token"`},
		{"unknown session", "st_nope", "GET", "/v1/me", 401, "credential_invalid", `error="invalid_token"`},
		{"sessions cannot be checked", downToken, "GET", "/v1/me", 503, "unavailable", ""},
		{"key with the scope", readerKey, "GET", "/v1/things", 200, "", ""},
		{"key without the scope", readerKey, "POST", "/v1/things", 403, "scope_missing", `scope="things:write"`},
		{"key on a call for sessions", readerKey, "GET", "/v1/me", 403, "forbidden", ""},
		{"key on a call for owners", readerKey, "GET", foreign, 204, "", ""},
		{"session on a call for keys", aliceToken, "GET", "/v1/things", 403, "forbidden", ""},
		{"session of the owner", aliceToken, "GET", own, 204, "", ""},
		{"session of another user", aliceToken, "GET", foreign, 404, "not_found", ""},
		{"root", webtest.RootKey, "GET", foreign, 204, "", ""},
		{"any credential", aliceToken, "POST", "/v1/failures/none", 404, "not_found", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := f.anyone.As(c.credential).Do(c.method, c.path, nil)
			if c.code != "" {
				res.WantProblem(c.status, c.code)
			}
			res.Want(c.status)
			if got := res.Header.Get("Www-Authenticate"); !strings.Contains(got, c.challenge) || c.challenge == "" && got != "" {
				t.Errorf("WWW-Authenticate is %q, want %q in it", got, c.challenge)
			}
		})
	}
	for _, header := range []string{"Basic dXNlcjpwYXNz", "Bearer", "Bearer  ", webtest.RootKey} {
		f.anyone.Do("GET", "/v1/things", nil, "Authorization", header).WantProblem(401, "credential_invalid")
	}
	f.anyone.Do("GET", "/v1/things", nil, "Authorization", "bEARER "+readerKey).Want(200)
	// A sign-in must not fail because the client still sends an old token.
	f.anyone.As("st_old").Do("POST", "/v1/sign-in", `{"password":"x"}`).Want(200)
}

func TestConfiguredKeysAreChecked(t *testing.T) {
	for name, cfg := range map[string]web.Config{
		"short root key": {RootKey: "short"},
		"not a hash":     {Keys: []web.APIKey{{Name: "a", Hash: "zz"}}},
		"same hash":      {Keys: []web.APIKey{webtest.Key("a", "k"), webtest.Key("b", "k")}},
	} {
		if _, err := web.New(cfg, bareDeps()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRequestInfo(t *testing.T) {
	f := newFixture(t, func(c *web.Config, _ *web.Deps) { c.TrustedProxies = []string{"127.0.0.0/8"} })
	type info struct {
		Kind, ID, IP string
		RequestID    string `json:"request_id"`
		TraceID      string `json:"trace_id"`
		NoCache      bool   `json:"no_cache"`
		Kept         string
	}
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	var got info
	res := f.anyone.As(aliceToken).Do("GET", "/v1/me", nil, "X-Request-ID", "abc-1", "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01",
		"X-Forwarded-For", "6.6.6.6, 203.0.113.9", "Cache-Control", "max-age=0, No-Cache").Want(200)
	res.JSON(&got)
	want := info{Kind: "user", ID: ids.Format("user", aliceID), IP: "203.0.113.9", RequestID: "abc-1", TraceID: trace, NoCache: true, Kept: "alice's session"}
	if got != want {
		t.Errorf("the handler saw %+v, want %+v", got, want)
	}
	if res.Header.Get("X-Request-Id") != "abc-1" || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers are %v", res.Header)
	}
	for _, bad := range []string{"", "a b", `"`, strings.Repeat("x", 129), "<script>"} {
		if got := f.Do("GET", "/v1/things", nil, "X-Request-ID", bad).Header.Get("X-Request-Id"); got == bad || len(got) != 32 {
			t.Errorf("X-Request-ID %q was answered with %q, want a new one", bad, got)
		}
	}
	got = info{}
	f.anyone.As(aliceToken).Do("GET", "/v1/me", nil, "Traceparent", "00-"+strings.Repeat("0", 32)+"-00f067aa0ba902b7-01").JSON(&got)
	if got.TraceID != "" {
		t.Errorf("an all-zero trace id was taken")
	}
}

func TestForwardedForIsNotBelieved(t *testing.T) {
	f := newFixture(t)
	var got struct{ IP string }
	f.anyone.As(aliceToken).Do("GET", "/v1/me", nil, "X-Forwarded-For", "6.6.6.6").Want(200).JSON(&got)
	if got.IP != "127.0.0.1" {
		t.Errorf("client address %q, want the connection's", got.IP)
	}
}

func TestFailures(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		kind   string
		status int
		code   string
	}{
		{"panic", 500, "internal_error"}, {"internal", 500, "internal_error"}, {"unavailable", 503, "unavailable"},
	} {
		res := f.Do("POST", "/v1/failures/"+c.kind, nil)
		res.WantProblem(c.status, c.code)
		if strings.Contains(string(res.Body), secret) {
			t.Errorf("%s: the answer shows the cause: %s", c.kind, res.Body)
		}
		if c.kind == "unavailable" && res.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After is %q, want 1.5 s rounded up", res.Header.Get("Retry-After"))
		}
		if id := res.Header.Get("X-Request-Id"); !strings.Contains(f.log.String(), id) {
			t.Errorf("%s: the log does not know request %s", c.kind, id)
		}
	}
}

func TestRequestDeadline(t *testing.T) {
	f := newFixture(t, func(c *web.Config, _ *web.Deps) { c.RequestTimeout = 20e6 })
	f.Do("POST", "/v1/failures/slow", nil).WantProblem(503, "timeout")
}

func TestAccessLogAndMetrics(t *testing.T) {
	f := newFixture(t)
	f.Do("GET", "/v1/things?name=alice@example.org", nil).Want(200)
	f.Do("GET", "/v1/things/thing_x", nil).Want(404)
	f.Do("GET", "/whatever/alice@example.org", nil).Want(404)
	f.Do("BREW", "/v1/things", nil).Want(405)
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"x"}`).Want(200) // is alice's doing
	log := f.log.String()
	for _, want := range []string{`"route":"/v1/things/{id}"`, `"route":"unmatched"`, `"status":404`, `"caller":"root"`, `"caller":"` + ids.Format("user", aliceID) + `"`, `"request_id":`, `"duration":`} {
		if !strings.Contains(log, want) {
			t.Errorf("the access log lacks %s:\n%s", want, log)
		}
	}
	for _, leak := range []string{"alice@", "thing_x", webtest.RootKey} {
		if strings.Contains(log, leak) {
			t.Errorf("the access log shows %s:\n%s", leak, log)
		}
	}
	body := adminGet(t, f.server, "/metrics").Body.String()
	for _, want := range []string{
		`strata_http_request_duration_seconds_count{method="GET",route="/v1/things/{id}",status="404"} 1`,
		`strata_http_request_duration_seconds_count{method="GET",route="unmatched",status="404"} 1`,
		`strata_http_request_duration_seconds_count{method="other",route="unmatched",status="405"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// TestIPv6ClientsAreLimitedByNetwork: a single customer has 2^64 addresses to choose from.
func TestIPv6ClientsAreLimitedByNetwork(t *testing.T) {
	f := newFixture(t, func(c *web.Config, _ *web.Deps) { c.TrustedProxies = []string{"127.0.0.0/8"} })
	for i := range 4 {
		want := 200
		if i == 3 {
			want = 429
		}
		f.anyone.Do("POST", "/v1/sign-in", `{"password":"x"}`, "X-Forwarded-For", fmt.Sprintf("2001:db8::%d", i+1)).Want(want)
	}
	f.anyone.Do("POST", "/v1/sign-in", `{"password":"x"}`, "X-Forwarded-For", "2001:db8:0:1::1").Want(200)
}

func TestRateLimit(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		f.anyone.Do("POST", "/v1/sign-in", `{"password":"x"}`).Want(200)
	}
	res := f.anyone.Do("POST", "/v1/sign-in", `{"password":"x"}`)
	res.WantProblem(http.StatusTooManyRequests, "rate_limited")
	if res.Header.Get("Retry-After") == "" || res.Header.Get("RateLimit-Policy") != `"sign_in";q=3;w=3600` ||
		!strings.HasPrefix(res.Header.Get("RateLimit"), `"sign_in";r=0;t=`) {
		t.Errorf("headers are %v", res.Header)
	}
}
