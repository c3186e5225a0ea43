package web

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// Check reports whether something the server depends on works. It is called with a deadline.
type Check func(ctx context.Context) error

// checkTimeout bounds each check of readiness.
const checkTimeout = 2 * time.Second

// Checks is what a server needs to be ready. The zero value is empty and usable; it is safe for concurrent use.
type Checks struct {
	mu       sync.Mutex
	checks   []namedCheck
	draining atomic.Bool
}

type namedCheck struct {
	name  string
	check Check
}

// Add registers a check under the name that /readyz?verbose shows.
func (c *Checks) Add(name string, check Check) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks = append(c.checks, namedCheck{name, check})
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Status string            `json:"status"`           // "ready", "not_ready" or "draining"
	Checks map[string]string `json:"checks,omitempty"` // "ok" or "failed", by name; the reasons are in the log
}

// Run performs all checks at once and returns the outcome and the failures by name.
func (c *Checks) Run(ctx context.Context) (Readiness, map[string]error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	c.mu.Lock()
	checks := c.checks
	c.mu.Unlock()

	results := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, nc := range checks {
		wg.Go(func() { results[i] = bounded(ctx, nc.check) })
	}
	wg.Wait()

	out := Readiness{Status: "ready", Checks: make(map[string]string, len(checks))}
	failures := map[string]error{}
	for i, nc := range checks {
		out.Checks[nc.name] = "ok"
		if results[i] != nil {
			out.Checks[nc.name] = "failed"
			out.Status = "not_ready"
			failures[nc.name] = results[i]
		}
	}
	if c.draining.Load() {
		out.Status = "draining"
	}
	return out, failures
}

// bounded gives up on a check that does not heed its context.
func bounded(ctx context.Context, check Check) error {
	done := make(chan error, 1)
	go func() { done <- check(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readyz answers whether the server should get traffic.
func (s *Server) readyz(c *gin.Context) {
	ctx := c.Request.Context()
	ready, failures := s.checks.Run(ctx)
	for name, err := range failures {
		s.log.WarnContext(ctx, "readiness check failed", "check", name, "error", err)
	}
	status := http.StatusOK
	if ready.Status != "ready" {
		status = http.StatusServiceUnavailable
	}
	if _, verbose := c.GetQuery("verbose"); !verbose {
		ready.Checks = nil
	}
	c.JSON(status, ready)
}

// livez answers while the process runs at all.
func livez(c *gin.Context) {
	c.JSON(http.StatusOK, gin.H{"status": "alive"})
}
