//go:build unix

package consistency

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A link leads one instance to one of its servers. It can be slow, be frozen, as where packets are lost and TCP goes on
// later, and be down.
type link struct {
	network, target string
	listener        net.Listener
	delay           atomic.Int64 // ns, of everything either way

	mu     sync.Mutex
	thawed sync.Cond // on mu
	frozen bool
	down   bool
	ends   map[net.Conn]net.Conn // each with its opposite
}

func newLink(t *testing.T, network, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{network: network, target: target, listener: listener, ends: map[net.Conn]net.Conn{}}
	l.thawed.L = &l.mu
	go l.serve()
	t.Cleanup(func() {
		_ = listener.Close()
		l.setFrozen(false)
		l.setDown(true)
	})
	return l
}

func (l *link) addr() string { return l.listener.Addr().String() }

func (l *link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return // the test is over
		}
		far, err := net.Dial(l.network, l.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		l.mu.Lock()
		l.ends[near], l.ends[far] = far, near
		if l.down {
			l.hangUp()
		}
		l.mu.Unlock()
		go l.carry(near, far)
		go l.carry(far, near)
	}
}

type chunk struct {
	bytes []byte
	due   time.Time
}

// carry passes on what comes, each chunk when it is due.
func (l *link) carry(from, to net.Conn) {
	chunks := make(chan chunk, 256)
	go func() {
		for c := range chunks {
			time.Sleep(time.Until(c.due))
			l.mu.Lock()
			for l.frozen {
				l.thawed.Wait()
			}
			l.mu.Unlock()
			_, _ = to.Write(c.bytes) // whoever is gone is noticed by the reading side
		}
		_ = to.Close()
		l.mu.Lock()
		delete(l.ends, from)
		l.mu.Unlock()
	}()
	defer close(chunks)
	for buffer := make([]byte, 32<<10); ; {
		n, err := from.Read(buffer)
		if n > 0 {
			chunks <- chunk{append([]byte(nil), buffer[:n]...), time.Now().Add(time.Duration(l.delay.Load()))}
		}
		if err != nil {
			return
		}
	}
}

func (l *link) setFrozen(frozen bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = frozen
	l.thawed.Broadcast()
}

// setDown ends all connections, and as long as it is down also each new one.
func (l *link) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down = down; down {
		l.hangUp()
	}
}

func (l *link) hangUp() {
	for end := range l.ends {
		_ = end.Close()
	}
}
