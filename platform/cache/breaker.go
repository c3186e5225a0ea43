package cache

import "sync/atomic"

// breakAfter calls in a row without an answer open the breaker. Few, because each has cost a request its timeout.
const breakAfter = 3

// breaker keeps requests from waiting for a Redis that does not answer in time. It costs a request one atomic load. It is
// closed again by the background's own calls, so that no request is ever the probe.
type breaker struct {
	failures atomic.Int32
	open     atomic.Bool
}

// note counts a call's result; errors that the server itself answered count as answers.
func (b *breaker) note(err error) {
	if !unreachable(err) {
		if b.failures.Load() != 0 {
			b.failures.Store(0)
		}
		return
	}
	if b.failures.Add(1) >= breakAfter {
		b.open.Store(true)
	}
}

// probed opens the breaker where a call of the background has taken longer than a request would wait, and closes it when
// one has been answered in time.
func (b *breaker) probed(answered, inTime bool) {
	switch {
	case !inTime:
		b.open.Store(true)
	case answered && b.open.Load():
		b.failures.Store(0)
		b.open.Store(false)
	}
}
