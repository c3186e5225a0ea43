package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
)

// Listening is a server whose listeners are open.
type Listening struct {
	server      *Server
	main, admin net.Listener
}

// lastCall is how long a connection may still bring a request after the listener has closed.
const lastCall = 100 * time.Millisecond

// Serve answers requests until ctx is done; then it says so on /readyz, has each answer end its connection, closes the
// listener, answers what still comes on connections that it has accepted, and gives requests in progress DrainTimeout to
// finish. It returns nil after an orderly end, and an error if a listener failed or requests had to be cut off.
func (l *Listening) Serve(ctx context.Context) error {
	s := l.server
	main, admin := s.httpServer(s.handler), s.httpServer(s.admin)
	admin.WriteTimeout = 0 // profiles are taken for as long as their reader asks

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(main, l.main) })
	if l.admin != nil {
		g.Go(func() error { return serve(admin, l.admin) })
	}
	g.Go(func() error {
		<-ctx.Done()
		s.checks.draining.Store(true)
		time.Sleep(s.cfg.DrainDelay)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
		defer cancel()
		// Shutdown drops requests that arrive after it was called, also those of clients that are connected already.
		_ = l.main.Close() // it is closed already where its failure is the reason for the end
		time.Sleep(lastCall)
		// The admin listener goes last: it is where the end is watched from.
		return errors.Join(drain(ctx, main), drain(ctx, admin))
	})
	return g.Wait()
}

func serve(srv *http.Server, l net.Listener) error {
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// drain waits for requests in progress, then cuts off what is left when ctx ends.
func drain(ctx context.Context, srv *http.Server) error {
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("drain: %w", err), srv.Close())
	}
	return nil
}

// httpServer has no ReadTimeout: net/http would cancel the context of a request that takes longer to answer. limitBody
// bounds the bodies instead.
func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		WriteTimeout:      s.cfg.WriteTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.errorLog(),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, hostOf(c.RemoteAddr().String()))
		},
	}
}

// peerKey finds the client's address in the context of a connection, where all its requests share it.
type peerKey struct{}
