package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/telemetry"
	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

// discard takes an answer without keeping it.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

func benchmark(b *testing.B, h http.Handler) {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/v1/things/thing_1", nil)
	req.Header.Set("Authorization", "Bearer "+webtest.RootKey)
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{header: http.Header{}}
		req.Header["Authorization"] = []string{"Bearer " + webtest.RootKey}
		h.ServeHTTP(w, req)
	}
}

// BenchmarkBareGin is the floor: a gin handler that marshals the same value.
func BenchmarkBareGin(b *testing.B) {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	thing := Thing{ID: "thing_1", Name: "one", Version: 1}
	e.GET("/v1/things/:id", func(c *gin.Context) { c.JSON(http.StatusOK, thing) })
	benchmark(b, e)
}

// BenchmarkOperation is the same through everything this package does.
func BenchmarkOperation(b *testing.B) {
	log, err := telemetry.NewLogger("json", "info", nowhere{}, web.LogAttrs)
	if err != nil {
		b.Fatal(err)
	}
	benchmarkOperation(b, log)
}

// BenchmarkOperationWithoutLog leaves the access log out.
func BenchmarkOperationWithoutLog(b *testing.B) {
	benchmarkOperation(b, slog.New(slog.DiscardHandler))
}

func benchmarkOperation(b *testing.B, log *slog.Logger) {
	b.Helper()
	s, err := web.New(web.Config{RootKey: webtest.RootKey}, web.Deps{Log: log, Metrics: prometheus.NewRegistry(), Checks: &web.Checks{}})
	if err != nil {
		b.Fatal(err)
	}
	thing := Thing{ID: "thing_1", Name: "one", Version: 1}
	web.Register(s.API(), web.Operation{
		ID: "getThing", Method: http.MethodGet, Path: "/v1/things/{id}", Auth: web.Auth{Scope: "things:read"},
	}, func(_ context.Context, in *getThing) (*thingOutput, error) {
		etag := web.ETag(thing.Version)
		if err := in.CheckRead(etag); err != nil {
			return nil, err
		}
		return &thingOutput{ETag: etag, Body: thing}, nil
	})
	benchmark(b, s.Handler())
}

// nowhere is a log that is formatted and thrown away.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
