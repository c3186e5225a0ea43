package web

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/errs"
	"github.com/strata-accounts/strata/platform/telemetry"
)

// observe is the outermost middleware: it attaches the request, turns panics into problems, and writes the access log
// and the metrics.
func (s *Server) observe(api *API) gin.HandlerFunc {
	return func(c *gin.Context) {
		req := s.begin(c)
		s.metrics.inFlight.Inc()
		defer func() {
			s.metrics.inFlight.Dec()
			panicked := s.recovered(c, req, recover())
			s.record(c, req, api, time.Since(req.began))
			if panicked && c.Writer.Written() {
				panic(http.ErrAbortHandler) // only a broken connection still tells the client that its answer is not whole
			}
		}()
		s.limitBody(c)
		if !isText(c.Request.URL.Path) {
			s.abort(c, problemOf(req, ErrNotFound))
			return
		}
		c.Next()
	}
}

// limitBody makes a body that comes too slowly fail, also one that nothing reads: net/http itself reads what is left
// before the connection is used again.
func (s *Server) limitBody(c *gin.Context) {
	if c.Request.ContentLength != 0 {
		setReadDeadline(c, time.Now().Add(s.cfg.ReadTimeout))
	}
}

// setReadDeadline moves the time by which the client must have sent more; zero means never. Writers of tests that are
// not connections have none.
func setReadDeadline(c *gin.Context, t time.Time) {
	_ = huma.SetReadDeadline(c.Writer, t)
}

// isText reports whether s is valid UTF-8 without NUL: what PostgreSQL stores as text.
func isText(s string) bool {
	return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s)
}

// recovered handles what a handler panicked with, if anything.
func (s *Server) recovered(c *gin.Context, req *request, v any) bool {
	if v == nil {
		return false
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return true // a stream that broke off; req.failure says why
	}
	req.failure = fmt.Errorf("panic: %v", v)
	s.log.LogAttrs(req, slog.LevelError, "panic", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
	if !c.Writer.Written() {
		c.Writer.Header().Del("Content-Length")
		s.abort(c, newProblem(req, http.StatusInternalServerError, errs.ErrInternal.Code, errs.ErrInternal.Message))
		return false
	}
	return true
}

// record writes the access log line and the metrics of an answered request. The route stands for the path, and queries
// are left out: either may hold what must not be logged, such as e-mail addresses. Probes and scrapes of the admin
// listener are logged at debug level.
func (s *Server) record(c *gin.Context, req *request, api *API, took time.Duration) {
	status, level := c.Writer.Status(), slog.LevelInfo
	var of outcome
	if req.route != nil && status == req.route.status {
		of = req.route.success()
	} else {
		of = s.outcomeOf(c.Request.Method, api.routeName(c), status)
	}
	of.took.Observe(took.Seconds())
	if req.route == nil && api == s.adminAPI {
		level = slog.LevelDebug
	}
	if req.failure != nil && status >= http.StatusInternalServerError {
		s.log.LogAttrs(req, slog.LevelError, "request failed", slog.Any("error", req.failure))
	} else if req.failure != nil {
		s.log.LogAttrs(req, slog.LevelWarn, "stream broke off", slog.Any("error", req.failure))
	}
	if !s.log.Enabled(req, level) {
		return
	}
	// Logger.LogAttrs would look up the time again, and the line of this code. A record holds five attributes without an
	// allocation.
	line := slog.NewRecord(req.began.Add(took), level, "request", 0)
	line.AddAttrs(
		slog.Duration("duration", took),
		slog.Int("bytes", max(c.Writer.Size(), 0)),
		slog.String("caller", req.caller.ID),
		slog.String("ip", req.info.IP),
		req.idAttr(),
	)
	if req.info.TraceID != "" {
		line.AddAttrs(req.traceAttr())
	}
	_ = of.log.Handle(req.Context, line) // there is nowhere to report a broken log to
}

// An outcome is what the answers of one route with one status have in common.
type outcome struct {
	took prometheus.Observer // the series of their durations
	log  slog.Handler        // has formatted their method, route and status
}

func (s *Server) outcomeOf(method, route string, status int) outcome {
	return outcome{
		took: s.metrics.of(method, route, status),
		log: telemetry.Vetted(s.log.Handler().WithAttrs([]slog.Attr{
			slog.String("method", method), slog.String("route", route), slog.Int("status", status),
		})),
	}
}

// LogAttrs returns what every log record of a request carries: a telemetry.ContextAttrs.
func LogAttrs(ctx context.Context) []slog.Attr {
	r := requestFrom(ctx)
	if r == nil {
		return nil
	}
	return []slog.Attr{r.idAttr(), r.traceAttr()}
}

func (r *request) idAttr() slog.Attr { return slog.String("request_id", r.info.ID) }

// traceAttr is empty, and thereby left out, where there is no trace.
func (r *request) traceAttr() slog.Attr {
	if r.info.TraceID == "" {
		return slog.Attr{}
	}
	return slog.String("trace_id", r.info.TraceID)
}

// errorLog passes on what net/http itself reports, such as broken TLS handshakes.
func (s *Server) errorLog() *log.Logger {
	return slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)
}
