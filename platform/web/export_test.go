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
