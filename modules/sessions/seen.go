package sessions

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Bounds of what waits to be written.
const (
	seenBatch = 1_000   // sessions per statement: their rows are locked while it runs
	seenMax   = 200_000 // sessions that may wait while the database is away; the use of more is forgotten
)

// seenLog notes when sessions are used, and writes it down in batches, off the path of the requests. A process that is
// killed forgets the uses since its last flush.
type seenLog struct {
	repo   Repository
	policy SeenPolicy
	wake   chan struct{} // asks for a flush before its time

	mu     sync.RWMutex
	noted  map[uuid.UUID]time.Time // when each session was last noted here
	unsent map[uuid.UUID]time.Time // what is not written yet
}

func newSeenLog(repo Repository, p SeenPolicy) *seenLog {
	return &seenLog{
		repo: repo, policy: p, wake: make(chan struct{}, 1),
		noted: map[uuid.UUID]time.Time{}, unsent: map[uuid.UUID]time.Time{},
	}
}

// note says that a session is used now. Urgent is one whose idle life is about to end: it is written at once.
func (l *seenLog) note(id uuid.UUID, now time.Time, urgent bool) {
	l.mu.RLock()
	at, known := l.noted[id]
	l.mu.RUnlock()
	if known && now.Sub(at) < l.policy.Interval {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.unsent) >= seenMax {
		return
	}
	l.noted[id], l.unsent[id] = now, now
	if urgent {
		select {
		case l.wake <- struct{}{}:
		default: // somebody has asked already
		}
	}
}

// flush writes what has been noted. What could not be written stays for the next time.
func (l *seenLog) flush(ctx context.Context) error {
	unsent := l.take()
	batch := make([]Use, 0, min(len(unsent), seenBatch))
	for id, at := range unsent {
		batch = append(batch, Use{ID: id, Ago: time.Since(at)})
		if len(batch) < seenBatch && len(batch) < len(unsent) {
			continue
		}
		if _, err := l.repo.Seen(ctx, batch, l.policy); err != nil {
			l.putBack(unsent)
			return err
		}
		for _, u := range batch {
			delete(unsent, u.ID)
		}
		batch = batch[:0]
	}
	return nil
}

// take returns what has not been written, and forgets the sessions that have not been used for an interval.
func (l *seenLog) take() map[uuid.UUID]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	unsent := l.unsent
	l.unsent = map[uuid.UUID]time.Time{}
	now := time.Now()
	for id, at := range l.noted {
		if now.Sub(at) >= l.policy.Interval {
			delete(l.noted, id)
		}
	}
	return unsent
}

// putBack returns what could not be written, except for sessions that have been used again meanwhile.
func (l *seenLog) putBack(unsent map[uuid.UUID]time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range unsent {
		if _, newer := l.unsent[id]; !newer {
			l.unsent[id] = at
		}
	}
}
