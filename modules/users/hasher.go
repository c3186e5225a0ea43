package users

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/rpc"
	"runtime"
	"sync"
	"time"

	"github.com/strata-accounts/strata/platform/errs"
)

// hasher makes and verifies password hashes, at most so many at a time: argon2 is made to keep a core busy, and the
// cores that it leaves are those that answer everybody else.
//
// It works in a process of its own where it can, which may have a lower priority than this one, so that the kernel
// prefers answering also on the core that hashes; and each hash's 19 MiB are not this process' garbage.
type hasher struct {
	*scheme
	slots chan struct{}
	wait  time.Duration
	apart []*apart // in the order in which they are asked
	log   *slog.Logger
}

// Start starts a process that runs ServeHashing, and returns its output and input.
type Start func() (io.ReadWriteCloser, error)

// newHasher returns a hasher that works on n passwords at a time, n <= 0 meaning one fewer than the cores, and at least
// one. A call waits its turn for so long at most. A process that
// had no time for a job is left alone for a while, except the last one.
func newHasher(n int, wait time.Duration, processes []Start, log *slog.Logger) *hasher {
	if n <= 0 {
		n = max(1, runtime.GOMAXPROCS(0)-1)
	}
	h := &hasher{scheme: newScheme(), slots: make(chan struct{}, n), wait: wait, log: log}
	for i, start := range processes {
		a := &apart{start: start, patience: hashPatience}
		if i < len(processes)-1 {
			a.patience, a.rest = idlePatience, idleRest
		}
		h.apart = append(h.apart, a)
	}
	return h
}

// hash returns the PHC string of a password. Errors: errs.ErrBusy, errs.ErrCanceled.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	r, err := h.do(ctx, Job{Password: password})
	return r.Hash, err
}

// verify reports whether password has this hash. An empty hash takes the time of one of ours and is nobody's; one that a
// password does not have, that time at least.
// Errors: errs.ErrBusy, errs.ErrCanceled, or a stored hash that cannot be read.
func (h *hasher) verify(ctx context.Context, password, hash string) (bool, error) {
	exists := hash != ""
	if !exists {
		hash = h.dummy
	}
	if _, err := h.decode(hash); err != nil {
		return false, fmt.Errorf("stored password hash: %w", err)
	}
	r, err := h.do(ctx, Job{password, hash})
	if err == nil && !r.Matches && outdated(hash) { // a cheap foreign hash must not tell that there is an account
		_, err = h.do(ctx, Job{password, h.dummy})
	}
	return r.Matches && exists, err
}

// do does a job when it is its turn. A process that cannot be started, or has died, costs no caller anything: the job is
// done here.
func (h *hasher) do(ctx context.Context, j Job) (r Result, err error) {
	if err := h.acquire(ctx); err != nil {
		return Result{}, err
	}
	defer h.release()
	for _, a := range h.apart {
		if err = a.work(j, &r); err == nil {
			return r, nil
		}
		if !errors.Is(err, errResting) {
			h.log.WarnContext(ctx, "a process that hashes passwords failed, or had no time; going on without it", "error", err)
		}
	}
	return r, h.Work(j, &r)
}

func (h *hasher) acquire(ctx context.Context) error {
	timer := time.NewTimer(h.wait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return errs.ErrBusy
	case <-ctx.Done():
		return errs.ErrCanceled.Wrap(ctx.Err())
	}
}

func (h *hasher) release() { <-h.slots }

// apart is a process that hashes, started when it is first needed, and again when it has failed.
type apart struct {
	start    Start
	patience time.Duration
	rest     time.Duration // after a failure

	mu     sync.Mutex
	client *rpc.Client
	until  time.Time // of its rest
}

const (
	jobs         = "Jobs"                 // the name of the one service in the process
	hashPatience = 5 * time.Second        // with a process: many times what the dearest hash takes
	idlePatience = 250 * time.Millisecond // with one that gets only what time is left over: ten times what a hash of ours takes
	idleRest     = time.Minute            // of such a one, when there was none
)

var (
	errSilent  = errors.New("no answer")
	errResting = errors.New("is left alone for a while")
)

// work has a job done there. Whatever fails, the next job gets another process.
func (a *apart) work(j Job, r *Result) error {
	client, err := a.open()
	if err != nil {
		return err
	}
	var done Result
	call := client.Go(jobs+".Work", j, &done, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		err = call.Error
	case <-time.After(a.patience):
		err = errSilent
	}
	if err == nil {
		*r = done
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client == client {
		a.client, a.until = nil, time.Now().Add(a.rest)
	}
	return errors.Join(err, client.Close())
}

func (a *apart) open() (*rpc.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.until) {
		return nil, errResting
	}
	if a.client == nil {
		conn, err := a.start()
		if err != nil {
			return nil, err
		}
		a.client = rpc.NewClient(conn)
	}
	return a.client, nil
}

// ServeHashing does jobs for the hasher at the other end of conn, until that ends.
func ServeHashing(conn io.ReadWriteCloser) error {
	server := rpc.NewServer()
	if err := server.RegisterName(jobs, newScheme()); err != nil {
		return err
	}
	server.ServeConn(conn)
	return nil
}
