package web

import (
	"testing"
	"time"
)

// ShortenStall makes d the time that a stream's client may take for one chunk, until the test ends.
func ShortenStall(t *testing.T, d time.Duration) {
	t.Helper()
	before := streamStall
	streamStall = d
	t.Cleanup(func() { streamStall = before })
}

// ShortenSettling makes d the time that keeping an answer may take, until the test ends.
func ShortenSettling(t *testing.T, d time.Duration) {
	t.Helper()
	before := settleTime
	settleTime = d
	t.Cleanup(func() { settleTime = before })
}
