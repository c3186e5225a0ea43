package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// acknowledgements holds what this instance owes to writers elsewhere, and what others have acknowledged to it.
type acknowledgements struct {
	mu      sync.Mutex
	owed    map[debt]position
	signal  chan struct{}
	heard   map[debt]position // by instance and group
	changed chan struct{}     // closed and replaced when heard changes
}

// A debt is one side of the exchange: the other instance, and the group.
type debt struct {
	instance string
	group    int
}

func newAcknowledgements() *acknowledgements {
	return &acknowledgements{
		owed: map[debt]position{}, signal: make(chan struct{}, 1),
		heard: map[debt]position{}, changed: make(chan struct{}),
	}
}

// owe notes that everything up to a position has been applied, which origin waits to hear.
func (a *acknowledgements) owe(origin string, group int, at position) {
	a.mu.Lock()
	a.owed[debt{origin, group}] = at
	a.mu.Unlock()
	select {
	case a.signal <- struct{}{}:
	default:
	}
}

// take returns the debts and forgets them.
func (a *acknowledgements) take() map[debt]position {
	a.mu.Lock()
	defer a.mu.Unlock()
	owed := a.owed
	a.owed = make(map[debt]position, len(owed))
	return owed
}

// arrive takes in "instance group epoch position".
func (a *acknowledgements) arrive(payload string) {
	parts := strings.Split(payload, " ")
	if len(parts) != 4 {
		return
	}
	group, gerr := strconv.Atoi(parts[1])
	pos, perr := strconv.ParseInt(parts[3], 10, 64)
	if gerr != nil || perr != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	at := debt{parts[0], group}
	if seen := a.heard[at]; seen.epoch == parts[2] && seen.pos >= pos {
		return
	}
	a.heard[at] = position{parts[2], pos}
	close(a.changed)
	a.changed = make(chan struct{})
}

// wait returns when all these instances have applied a position, or d has passed; then with those that have not.
func (a *acknowledgements) wait(group int, at position, holders []holder, d time.Duration) []holder {
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	for {
		late, changed := a.late(group, at, holders)
		if len(late) == 0 {
			return nil
		}
		select {
		case <-changed:
			holders = late
		case <-timeout.C:
			a.forget(group, late)
			return late
		}
	}
}

func (a *acknowledgements) late(group int, at position, holders []holder) (late []holder, changed <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range holders {
		if seen := a.heard[debt{h.instance, group}]; seen.epoch != at.epoch || seen.pos < at.pos {
			late = append(late, h)
		}
	}
	return late, a.changed
}

// forget drops what was heard from instances that may be gone for good.
func (a *acknowledgements) forget(group int, gone []holder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range gone {
		delete(a.heard, debt{h.instance, group})
	}
}

// acknowledge pays the debts, many in one round trip where they come faster than that.
func (c *Cache) acknowledge(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.acks.signal:
		}
		faults.at("before acknowledgement")
		owed := c.acks.take()
		call, cancel := context.WithTimeout(ctx, controlTimeout)
		_, _ = c.shared.control.Pipelined(call, func(p redis.Pipeliner) error { // a writer that does not hear of it waits
			for to, at := range owed {
				p.Publish(call, c.shared.acks(to.instance), fmt.Sprintf("%s %d %s %d", c.id, to.group, at.epoch, at.pos))
			}
			return nil
		})
		cancel()
	}
}
