//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// The load generator shares the machine with what it measures, so it is as cheap as it can be: prebuilt requests on raw
// keep-alive connections, one thread that waits for all of them with epoll, no allocation per request.

// A plan is what one connection sends, from the first request to the last and again.
type plan [][]byte

// A load is what a window of requests showed.
type load struct {
	took      time.Duration
	latencies []time.Duration // of each answered request
	refused   int             // answers outside 2xx
	last      []byte          // the last refusal, for a report
}

func (l *load) perSecond() float64 { return float64(len(l.latencies)) / l.took.Seconds() }

// percentile sorts on first use.
func (l *load) percentile(p float64) time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	slices.Sort(l.latencies)
	return l.latencies[min(len(l.latencies)-1, int(p/100*float64(len(l.latencies))))]
}

// client is one connection with at most one request under way.
type client struct {
	fd      int
	plan    plan
	next    int
	sent    time.Time
	buf     []byte
	answers []byte // what has arrived of the answer, in buf
}

// drive sends the plans, one connection each, to addr for d. With a rate it sends so many requests a second over all
// connections, and a request that finds no connection free counts as sent when it was due; without one, each connection
// sends as soon as it is answered.
func drive(addr string, plans []plan, d time.Duration, rate int) (*load, error) {
	epoll, err := syscall.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Close(epoll) }()
	g := &generator{clients: map[int32]*client{}, load: &load{latencies: make([]time.Duration, 0, 1<<18)}}
	defer g.close()
	for _, p := range plans {
		c, err := dial(addr, p)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		fd := int32(c.fd) //nolint:gosec // descriptors are small
		g.clients[fd] = c
		g.free = append(g.free, c)
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: fd}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, c.fd, &event); err != nil {
			return nil, err
		}
	}
	return g.load, g.run(epoll, d, rate)
}

type generator struct {
	clients map[int32]*client
	free    []*client
	load    *load
}

func (g *generator) close() {
	for _, c := range g.clients {
		_ = syscall.Close(c.fd)
	}
}

func (g *generator) run(epoll int, d time.Duration, rate int) error {
	events := make([]syscall.EpollEvent, len(g.clients))
	start := time.Now()
	issued := 0
	dueAt := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second / time.Duration(rate)) }
	for now := start; now.Sub(start) < d; now = time.Now() {
		for len(g.free) > 0 {
			due := now
			if rate > 0 {
				if due = dueAt(issued); due.After(now) {
					break
				}
				if now.Sub(due) < 2*time.Millisecond { // this thread was late, not the server
					due = now
				}
			}
			c := g.free[0]
			g.free = g.free[1:]
			if err := c.send(due); err != nil {
				return err
			}
			issued++
		}
		patience := time.Millisecond
		if rate > 0 && len(g.free) > 0 {
			patience = max(0, min(patience, time.Until(dueAt(issued))))
		}
		n, err := wait(epoll, events, patience)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		for i := range max(n, 0) {
			if err := g.receive(g.clients[events[i].Fd]); err != nil {
				return err
			}
		}
	}
	g.load.took = time.Since(start)
	return nil
}

// wait is EpollWait with a timeout in nanoseconds: in whole milliseconds, requests would be sent in bursts.
func wait(epoll int, events []syscall.EpollEvent, d time.Duration) (int, error) {
	const epollPwait2 = 441 // on every architecture, since Linux 5.11
	timeout := syscall.NsecToTimespec(int64(d))
	first, until := unsafe.Pointer(&events[0]), unsafe.Pointer(&timeout) //nolint:gosec // the system call takes addresses
	n, _, errno := syscall.Syscall6(epollPwait2, uintptr(epoll), uintptr(first), uintptr(len(events)), uintptr(until), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func (g *generator) receive(c *client) error {
	whole, err := c.read()
	if err != nil || !whole {
		return err
	}
	g.load.latencies = append(g.load.latencies, time.Since(c.sent))
	if !bytes.HasPrefix(c.answers, []byte("HTTP/1.1 2")) {
		g.load.refused++
		g.load.last = append(g.load.last[:0], c.answers...)
	}
	g.free = append(g.free, c)
	return nil
}

func dial(addr string, p plan) (*client, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err == nil {
		err = errors.Join(syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1), syscall.SetNonblock(fd, true))
	}
	if err != nil {
		return nil, errors.Join(err, syscall.Close(fd))
	}
	return &client{fd: fd, plan: p, buf: make([]byte, 64<<10)}, nil
}

// send writes the plan's next request. Requests are far smaller than a socket's buffer, so one write takes all.
func (c *client) send(due time.Time) error {
	request := c.plan[c.next]
	c.next = (c.next + 1) % len(c.plan)
	c.sent, c.answers = due, c.buf[:0]
	n, err := syscall.Write(c.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("the socket took part of a request")
	}
	return err
}

// read takes in what has arrived, and reports whether that completes the answer.
func (c *client) read() (bool, error) {
	if len(c.answers) == cap(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
		c.answers = c.buf[:len(c.answers)]
	}
	n, err := syscall.Read(c.fd, c.buf[len(c.answers):cap(c.buf)])
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if n == 0 {
		return false, fmt.Errorf("the server closed the connection after %q", c.answers)
	}
	c.answers = c.buf[:len(c.answers)+n]
	return complete(c.answers)
}

var (
	headEnd       = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
	chunked       = []byte("\r\nTransfer-Encoding: chunked\r\n")
	lastChunk     = []byte("\r\n0\r\n\r\n")
)

// complete reports whether answer is a whole one. Go's servers write header names in this form; a JSON body holds no
// last chunk.
func complete(answer []byte) (bool, error) {
	end := bytes.Index(answer, headEnd)
	if end < 0 {
		return false, nil
	}
	head := answer[:end+2]
	if at := bytes.Index(head, contentLength); at >= 0 {
		digits := head[at+len(contentLength):]
		n, err := strconv.Atoi(string(digits[:bytes.IndexByte(digits, '\r')]))
		return len(answer) >= end+len(headEnd)+n, err
	}
	if bytes.Contains(head, chunked) {
		return bytes.HasSuffix(answer, lastChunk), nil
	}
	return true, nil
}

// bodyOf sends one request, and returns the body of its answer.
func bodyOf(addr string, request []byte) ([]byte, error) {
	c, err := dial(addr, plan{request})
	if err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Close(c.fd) }()
	if err := errors.Join(syscall.SetNonblock(c.fd, false), c.send(time.Now())); err != nil {
		return nil, err
	}
	for whole := false; !whole; {
		if whole, err = c.read(); err != nil {
			return nil, err
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.answers)), nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s", res.Status, body)
	}
	return body, err
}

// repeat gives each of n connections its share of the requests, one after the other.
func repeat(n int, requests [][]byte) []plan {
	plans := make([]plan, n)
	for i, r := range requests {
		plans[i%n] = append(plans[i%n], r)
	}
	for i := len(requests); i < n; i++ {
		plans[i] = plan{requests[i%len(requests)]}
	}
	return plans
}

// request builds the bytes of a request.
func request(method, path, credential, body string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, net.JoinHostPort("127.0.0.1", "80"))
	if credential != "" {
		fmt.Fprintf(&b, "Authorization: Bearer %s\r\n", credential)
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("User-Agent: bench\r\n\r\n" + body)
	return b.Bytes()
}
