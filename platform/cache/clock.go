package cache

import (
	"sync/atomic"
	"time"
)

var processStart = time.Now()

// An instant is one reading of both clocks. The monotonic one measures; the wall clock notices that a virtual machine
// was suspended, while its monotonic clock stood still.
type instant struct {
	mono time.Duration // since the process started
	wall int64         // Unix nanoseconds
}

func clock() instant {
	t := time.Now()
	return instant{mono: t.Sub(processStart), wall: t.UnixNano()}
}

// A lease is the permission to serve from the in-process tier until a deadline.
type lease struct {
	mono atomic.Int64
	wall atomic.Int64
}

func (l *lease) valid(now instant) bool {
	return int64(now.mono) < l.mono.Load() && now.wall < l.wall.Load()
}

// extend makes the lease last for d from an instant that has passed.
func (l *lease) extend(from instant, d time.Duration) {
	l.wall.Store(from.wall + int64(d))
	l.mono.Store(int64(from.mono + d))
}

func (l *lease) revoke() { l.mono.Store(0) }
