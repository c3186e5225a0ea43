package web

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/strata-accounts/strata/platform/db"
)

// What a request may bring.
const (
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 1 << 20 // streams apart
)

// Config is what an operator sets. Zero durations and sizes mean the defaults named here.
type Config struct {
	Addr              string           // of the main listener, "127.0.0.1:8080"; port 0 picks a free one
	AdminAddr         string           // of the admin listener; empty: there is none
	ReadHeaderTimeout time.Duration    // 5 s: a client must have sent its headers
	ReadTimeout       time.Duration    // 30 s: and the body, streams apart
	WriteTimeout      time.Duration    // 60 s: and taken the whole answer, streams apart
	IdleTimeout       time.Duration    // 120 s: a kept-alive connection is closed
	RequestTimeout    time.Duration    // 30 s: the deadline in a request's context, streams apart
	DrainTimeout      time.Duration    // 20 s: requests in progress may finish at shutdown
	DrainDelay        time.Duration    // 0 s: how long /readyz says no before the listener closes
	TrustedProxies    []string         // CIDRs whose X-Forwarded-For is believed; empty: nobody's
	RootKey           string           // an API key with all scopes; at least MinRootKey characters; empty: none
	Keys              []APIKey         // further API keys
	Limits            map[string]Limit // by the name that Operation.RateLimit gives
	Version           string           // "1": of the API, in the OpenAPI document
}

// Deps are the server's neighbours.
type Deps struct {
	Log      *slog.Logger
	Metrics  *prometheus.Registry
	Checks   *Checks
	DB       *db.DB               // keeps idempotency keys; needed as soon as a POST operation is registered
	Sessions SessionVerifier      // nil: session tokens are refused
	Limiter  Limiter              // needed as soon as an operation has a RateLimit
	Traces   trace.TracerProvider // nil: requests are not traced
}

// Server answers HTTP on a main and an admin listener.
type Server struct {
	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *metrics
	checks   *Checks
	db       *db.DB
	sessions SessionVerifier
	limiter  Limiter
	keys     keyring
	secrets  secrets
	traced   bool
	api      *API
	adminAPI *API
	handler  http.Handler
	admin    http.Handler
	addr     net.Addr
	adminAdr net.Addr
}

// New makes a server; it does not listen yet.
func New(cfg Config, deps Deps) (*Server, error) {
	cfg = cfg.withDefaults()
	keys, err := newKeyring(cfg.RootKey, cfg.Keys)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: deps.Log, registry: deps.Metrics, metrics: newMetrics(deps.Metrics), checks: deps.Checks,
		db: deps.DB, sessions: deps.Sessions, limiter: deps.Limiter, keys: keys,
	}
	if s.secrets, err = newSecrets(cfg); err != nil {
		return nil, err
	}
	main, err := s.newEngine()
	if err != nil {
		return nil, err
	}
	admin, err := s.newEngine()
	if err != nil {
		return nil, err
	}
	s.api, s.adminAPI = newAPI(s, main, cfg.Version), newAPI(s, admin, cfg.Version)
	if deps.Traces != nil {
		s.traced = true
		main.Use(s.trace(s.api, deps.Traces))
	}
	main.Use(s.observe(s.api))
	admin.Use(s.observe(s.adminAPI))
	s.mountDocs(main)
	s.mountAdmin(admin)
	s.handler, s.admin = answerHead(main), answerHead(admin)
	return s, nil
}

// API is where modules register what the main listener serves.
func (s *Server) API() *API { return s.api }

// AdminAPI is where modules register what the admin listener serves besides health, metrics and profiles.
func (s *Server) AdminAPI() *API { return s.adminAPI }

// Handler serves what the main listener serves, for tests.
func (s *Server) Handler() http.Handler { return s.handler }

// AdminHandler serves what the admin listener serves, for tests.
func (s *Server) AdminHandler() http.Handler { return s.admin }

// Addr is where the main listener listens, once Listen has succeeded.
func (s *Server) Addr() net.Addr { return s.addr }

// AdminAddr is where the admin listener listens, once Listen has succeeded; nil without one.
func (s *Server) AdminAddr() net.Addr { return s.adminAdr }

func (c Config) withDefaults() Config {
	setDefault(&c.ReadHeaderTimeout, 5*time.Second)
	setDefault(&c.ReadTimeout, 30*time.Second)
	setDefault(&c.WriteTimeout, 60*time.Second)
	setDefault(&c.IdleTimeout, 120*time.Second)
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.DrainTimeout, 20*time.Second)
	setDefault(&c.Version, "1")
	return c
}

func setDefault[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// secrets authenticate cursors and protect stored answers. They follow from the root key, or else from the hashes of the
// other keys, so that all instances agree on them and nothing has to be kept.
type secrets struct{ cursor, idempotency []byte }

func newSecrets(cfg Config) (secrets, error) {
	source := cfg.RootKey
	if source == "" {
		var hashes []string
		for _, k := range cfg.Keys {
			hashes = append(hashes, strings.ToLower(k.Hash))
		}
		slices.Sort(hashes)
		source = strings.Join(hashes, "\n")
	}
	if source == "" {
		source = rand.Text() // without any key, nothing has to outlive the process
	}
	derive := func(use string) ([]byte, error) {
		return hkdf.Key(sha256.New, []byte(source), nil, "strata "+use, sha256.Size)
	}
	cursor, err := derive("cursor")
	if err != nil {
		return secrets{}, fmt.Errorf("derive secrets: %w", err)
	}
	idempotency, err := derive("idempotency")
	if err != nil {
		return secrets{}, fmt.Errorf("derive secrets: %w", err)
	}
	return secrets{cursor, idempotency}, nil
}

// newEngine makes a router that answers in problems only.
func (s *Server) newEngine() (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.RedirectTrailingSlash = false
	e.HandleMethodNotAllowed = true
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	if err := e.SetTrustedProxies(s.cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trusted proxies: %w", err)
	}
	e.NoRoute(func(c *gin.Context) {
		s.abort(c, newProblem(c.Request.Context(), http.StatusNotFound, "route_not_found", "There is nothing under this path."))
	})
	e.NoMethod(func(c *gin.Context) {
		if allow := c.Writer.Header().Get("Allow"); strings.Contains(allow, http.MethodGet) {
			c.Header("Allow", allow+", "+http.MethodHead)
		}
		s.abort(c, newProblem(c.Request.Context(), http.StatusMethodNotAllowed, "method_not_allowed",
			"This path does not know this method; see the Allow header."))
	})
	return e, nil
}

// answerHead serves HEAD as GET; net/http leaves out the body.
func answerHead(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		h.ServeHTTP(w, r)
	})
}

// Listen opens the listeners, so that a busy port is known before anything else starts.
func (s *Server) Listen(ctx context.Context) (*Listening, error) {
	var lc net.ListenConfig
	main, err := lc.Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l := &Listening{server: s, main: main}
	s.addr = main.Addr()
	if s.cfg.AdminAddr == "" {
		return l, nil
	}
	if l.admin, err = lc.Listen(ctx, "tcp", s.cfg.AdminAddr); err != nil {
		return nil, errors.Join(fmt.Errorf("listen (admin): %w", err), main.Close())
	}
	s.adminAdr = l.admin.Addr()
	return l, nil
}
