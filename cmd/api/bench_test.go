package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/db/dbtest"
	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
)

const benchKey = "sk_0123456789abcdefghijklmnopqrstuv"

// BenchmarkHotPath is what the server does for the calls that an application makes on every request, from the router
// on: all modules, their cache warm, the log formatted and thrown away. The floor is a handler that answers the same
// bytes from memory. What net/http and the kernel take comes on top of both; package bench measures the whole.
//
//	go test -run '^$' -bench HotPath -benchmem ./cmd/api
func BenchmarkHotPath(b *testing.B) {
	h := newHotServer(b)
	call := func(method, target, credential, body string, out any) *httptest.ResponseRecorder {
		b.Helper()
		req := httptest.NewRequestWithContext(b.Context(), method, target, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+credential)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code >= http.StatusBadRequest {
			b.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			b.Fatal(err)
		}
		return w
	}
	var user struct{ ID string }
	var session struct{ Token string }
	var other any
	call("POST", "/v1/users", benchKey, `{"email":"ada@example.com","name":"Ada Lovelace","password":"correct horse battery"}`, &user)
	call("POST", "/v1/sessions", benchKey, `{"email":"ada@example.com","password":"correct horse battery"}`, &session)
	call("PUT", "/v1/preference-definitions/theme", benchKey, `{"schema":{"type":"string"},"default":"light"}`, &other)
	call("PATCH", "/v1/users/"+user.ID+"/preferences", benchKey, `{"theme":"dark"}`, &other)

	for _, hot := range []struct{ name, target, credential string }{
		{"session", "/v1/sessions/current", session.Token},
		{"user", "/v1/users/" + user.ID, benchKey},
		{"preferences", "/v1/users/" + user.ID + "/preferences", benchKey},
	} {
		body := call("GET", hot.target, hot.credential, "", &other).Body.Bytes()
		b.Run(hot.name, func(b *testing.B) { repeat(b, h, hot.target, hot.credential) })
		gin.SetMode(gin.ReleaseMode)
		bare := gin.New()
		bare.GET("/v1/:a/:b", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", body) })
		bare.GET("/v1/:a/:b/:c", func(c *gin.Context) { c.Data(http.StatusOK, "application/json", body) })
		b.Run(hot.name+" floor: bare gin", func(b *testing.B) { repeat(b, bare, hot.target, hot.credential) })
	}
}

// newHotServer is the whole server but for its listeners, on a database of its own.
func newHotServer(b *testing.B) http.Handler {
	b.Helper()
	cfg, err := loadConfig([]string{"STRATA_ROOT_KEY=" + benchKey, "STRATA_STATE_DIR=" + b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	log, err := telemetry.NewLogger("json", "info", telemetry.NewBuffer(new(nowhere)), web.LogAttrs)
	if err != nil {
		b.Fatal(err)
	}
	a, err := newApp(b.Context(), cfg, dbtest.Open(b, migrations()...), log, telemetry.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	jobs, stop := a.run(context.WithoutCancel(b.Context()), log)
	b.Cleanup(func() {
		stop()
		_ = jobs.Wait()
		_ = a.close()
	})
	return a.server.Handler()
}

// repeat sends one request over and over.
func repeat(b *testing.B, h http.Handler, target, credential string) {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
	req.Header.Set("Authorization", "Bearer "+credential)
	req.Header.Set("User-Agent", "bench")
	w := &lastAnswer{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		w.Reset()
		h.ServeHTTP(w, req)
	}
	if w.status != http.StatusOK || w.Len() == 0 {
		b.Fatalf("%d %s", w.status, w)
	}
}

// lastAnswer is a response that takes no memory of its own for the next one.
type lastAnswer struct {
	bytes.Buffer
	header http.Header
	status int
}

func (w *lastAnswer) Header() http.Header    { return w.header }
func (w *lastAnswer) WriteHeader(status int) { w.status = status }

// nowhere is a log that is formatted and thrown away.
type nowhere struct{}

func (*nowhere) Write(p []byte) (int, error) { return len(p), nil }
