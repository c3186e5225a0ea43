package web

import (
	"context"
	"sync"
	"time"
)

// lazyDeadline is a context that expires like one of context.WithDeadline, but makes that, and its timer, only when
// somebody first waits for it: most requests are answered from memory before anybody does.
type lazyDeadline struct {
	context.Context           // the parent
	at              time.Time // zero: there is none
	mu              sync.Mutex
	timed           context.Context // nil until it is needed
	cancel          context.CancelFunc
}

// Deadline implements context.Context.
func (l *lazyDeadline) Deadline() (time.Time, bool) {
	if parent, ok := l.Context.Deadline(); l.at.IsZero() || ok && parent.Before(l.at) {
		return parent, ok
	}
	return l.at, true
}

// Done implements context.Context.
func (l *lazyDeadline) Done() <-chan struct{} { return l.wait().Done() }

// Err implements context.Context.
func (l *lazyDeadline) Err() error { return l.wait().Err() }

// Value implements context.Context. The context package asks it for the timed context, to hang others on that.
func (l *lazyDeadline) Value(key any) any {
	l.mu.Lock()
	timed := l.timed
	l.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return l.Context.Value(key)
}

// wait returns the context that ends in time. One that is asked for after the request's end has ended with the parent.
func (l *lazyDeadline) wait() context.Context {
	if l.at.IsZero() {
		return l.Context
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timed == nil {
		l.timed, l.cancel = context.WithDeadline(l.Context, l.at)
	}
	return l.timed
}

// end releases what waits for the deadline.
func (l *lazyDeadline) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}
