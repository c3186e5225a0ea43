package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-accounts/strata/platform/web"
	"github.com/strata-accounts/strata/platform/web/webtest"
)

func bareDeps() web.Deps {
	return web.Deps{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Checks: &web.Checks{}}
}

func adminGet(t *testing.T, s *web.Server, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	s.AdminHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil))
	return w
}

func TestHealth(t *testing.T) {
	var failure error
	s := webtest.NewServer(t, nil, func(_ *web.Config, d *web.Deps) {
		d.Checks.Add("database", func(context.Context) error { return failure })
		d.Checks.Add("cache", func(context.Context) error { return nil })
	})
	for _, path := range []string{"/livez", "/healthz", "/readyz"} {
		if w := adminGet(t, s, path); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	failure = errors.New("connect: " + secret)
	w := adminGet(t, s, "/readyz?verbose")
	var got web.Readiness
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || got.Status != "not_ready" || got.Checks["database"] != "failed" || got.Checks["cache"] != "ok" {
		t.Errorf("/readyz?verbose: %d %s", w.Code, w.Body)
	}
	if strings.Contains(w.Body.String(), secret) {
		t.Errorf("/readyz?verbose shows the cause: %s", w.Body)
	}
	if w := adminGet(t, s, "/livez"); w.Code != 200 {
		t.Errorf("/livez: %d while a check fails", w.Code)
	}
	if w := adminGet(t, s, "/debug/pprof/goroutine?debug=1"); w.Code != 200 || !strings.Contains(w.Body.String(), "goroutine profile") {
		t.Errorf("pprof: %d", w.Code)
	}
}

func TestHungCheckIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var c web.Checks
	c.Add("hung", func(context.Context) error { cancel(); select {} })
	if ready, failures := c.Run(ctx); ready.Status != "not_ready" || failures["hung"] == nil {
		t.Errorf("readiness is %+v with %v", ready, failures)
	}
}

// listen serves s until the test ends and returns how to end it.
func listen(t *testing.T, s *web.Server) (stop func() error) {
	t.Helper()
	l, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestShutdownDrains(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := webtest.NewServer(t, nil, func(c *web.Config, _ *web.Deps) { c.AdminAddr = "127.0.0.1:0" })
	web.Register(s.API(), web.Operation{ID: "wait", Method: "GET", Path: "/wait", Auth: web.Auth{Public: true}},
		func(context.Context, *struct{}) (*struct{}, error) {
			close(entered)
			<-leave
			return nil, nil
		})
	stop := listen(t, s)
	status := make(chan int, 1)
	go func() {
		res, err := http.Get("http://" + s.Addr().String() + "/wait")
		if err != nil {
			status <- 0
			return
		}
		res.Body.Close()
		status <- res.StatusCode
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for adminGet(t, s, "/readyz").Code != http.StatusServiceUnavailable {
		time.Sleep(time.Millisecond)
	}
	close(leave)
	if err := <-ended; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if got := <-status; got != http.StatusNoContent {
		t.Errorf("the request in progress got %d, want 204", got)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

// TestShutdownAnswersWhoIsConnected: a request on a connection that was accepted before the end is answered, and told that
// it was the last one.
func TestShutdownAnswersWhoIsConnected(t *testing.T) {
	s := webtest.NewServer(t, nil)
	stop := listen(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	after, err := http.Get("http://" + s.Addr().String() + "/openapi.json")
	if err != nil { // else the connection before this one has been accepted, too
		t.Fatal(err)
	}
	after.Body.Close()
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for {
		late, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break // the listener has closed
		}
		late.Close()
	}
	if _, err := io.WriteString(conn, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK || !res.Close {
		t.Errorf("status %d, closes %t", res.StatusCode, res.Close)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestDrainTimeoutIsForBothListeners: requests that do not end must not hold up the end twice.
func TestDrainTimeoutIsForBothListeners(t *testing.T) {
	const timeout = time.Second
	s := webtest.NewServer(t, nil, func(c *web.Config, _ *web.Deps) {
		c.AdminAddr, c.DrainTimeout = "127.0.0.1:0", timeout
	})
	var entered sync.WaitGroup
	entered.Add(2)
	mainCut, adminCut := make(chan struct{}), make(chan bool, 1)
	hang := web.Operation{ID: "hang", Method: "GET", Path: "/hang", Auth: web.Auth{Public: true}}
	web.Register(s.API(), hang, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		entered.Done()
		<-ctx.Done()
		close(mainCut)
		return nil, nil
	})
	web.Register(s.AdminAPI(), hang, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		entered.Done()
		<-mainCut
		select {
		case <-ctx.Done():
			adminCut <- true
		case <-time.After(timeout / 2):
			adminCut <- false
		}
		return nil, nil
	})
	stop := listen(t, s)
	for _, addr := range []net.Addr{s.Addr(), s.AdminAddr()} {
		go func() {
			if res, err := http.Get("http://" + addr.String() + "/hang"); err == nil {
				res.Body.Close()
			}
		}()
	}
	entered.Wait()
	if err := stop(); err == nil {
		t.Error("Serve does not report that requests were cut off")
	}
	if !<-adminCut {
		t.Error("the admin listener drains for a second timeout")
	}
}

func TestListenReportsABusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := webtest.NewServer(t, nil, func(c *web.Config, _ *web.Deps) { c.AdminAddr = l.Addr().String() })
	if _, err := s.Listen(t.Context()); err == nil {
		t.Error("Listen succeeded on a port that is taken")
	}
}

// TestSlowClientsAreCutOff sends a request's first bytes and then nothing: the server must hang up by itself.
func TestSlowClientsAreCutOff(t *testing.T) {
	s := webtest.NewServer(t, nil, func(c *web.Config, _ *web.Deps) {
		c.ReadHeaderTimeout, c.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond
	})
	web.ShortenStall(t, 100*time.Millisecond)
	web.Register(s.API(), web.Operation{ID: "put", Method: "PUT", Path: "/put", Auth: web.Auth{Public: true}},
		func(context.Context, *struct{ Body struct{} }) (*struct{}, error) { return nil, nil })
	web.Register(s.API(), web.Operation{
		ID: "import", Method: "POST", Path: "/import", Streams: true, Auth: web.Auth{Public: true}, Answers: []string{web.NDJSON},
	}, (&toy{}).importThings)
	stop := listen(t, s)
	for name, start := range map[string]string{
		"headers": "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"unread":  "PUT /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"body":    "PUT /put HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		"stream":  "POST /import HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, start); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil { // for a server that never hangs up
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(conn); err != nil {
				t.Errorf("the connection is still open: %v", err)
			} else if (name == "body" || name == "stream") && !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") {
				t.Errorf("the answer is %q, want 408", answer)
			}
		})
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestStreamsOutliveRequests: the limits of ordinary requests must not end a stream that makes progress.
func TestStreamsOutliveRequests(t *testing.T) {
	const limit = 50 * time.Millisecond
	s := webtest.NewServer(t, nil, func(c *web.Config, _ *web.Deps) {
		c.ReadHeaderTimeout, c.ReadTimeout, c.WriteTimeout, c.RequestTimeout = limit, limit, limit, limit
	})
	web.Register(s.API(), web.Operation{
		ID: "export", Method: "POST", Path: "/export", Streams: true, Auth: web.Auth{Public: true}, Answers: []string{web.NDJSON},
	}, func(_ context.Context, in *importInput) (*web.Stream, error) {
		return web.StreamNDJSON(func(ctx context.Context, w *web.RecordWriter) error {
			for line, err := range in.Lines() {
				if err := errors.Join(err, line.Err); err != nil {
					return err
				}
			}
			select {
			case <-time.After(5 * limit):
			case <-ctx.Done():
				return ctx.Err()
			}
			return w.Write("whole")
		}), nil
	})
	stop := listen(t, s)
	for last, want := range map[string]string{"": "\"whole\"\n", strings.Repeat("x", web.MaxLine+1): `"code":"line_too_long"`} {
		body, send := io.Pipe()
		go func() {
			_, _ = io.WriteString(send, "{\"label\":\"a\"}\n")
			time.Sleep(3 * limit)
			_, _ = io.WriteString(send, last)
			_ = send.Close()
		}()
		res, err := http.Post("http://"+s.Addr().String()+"/export", web.NDJSON, body)
		if err != nil {
			t.Errorf("no answer that has %s: %v", want, err)
			continue
		}
		if got, err := io.ReadAll(res.Body); !strings.Contains(string(got), want) || err != nil {
			t.Errorf("the answer is %q, %v; want one that has %s", got, err, want)
		}
		res.Body.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestOversizedHeadersAreRefused(t *testing.T) {
	s := webtest.NewServer(t, nil)
	stop := listen(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { // the server hangs up before it has read all
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("x", 1<<20)+"\r\n\r\n")
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("the answer is %d, want 431", res.StatusCode)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestDocuments(t *testing.T) {
	f := newFixture(t)
	first, second := f.Do("GET", "/openapi.json", nil).Want(200), f.Do("GET", "/openapi.json", nil).Want(200)
	if string(first.Body) != string(second.Body) {
		t.Error("/openapi.json differs from call to call")
	}
	direct, err := f.server.API().OpenAPI()
	if err != nil || string(direct) != string(first.Body) {
		t.Errorf("OpenAPI() differs from what is served (%v)", err)
	}
	page := string(f.Do("GET", "/docs", nil).Want(200).Body)
	for _, file := range []string{"/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"} {
		if !strings.Contains(page, `"`+file+`"`) {
			t.Errorf("/docs does not load %s", file)
		}
		res := f.Do("GET", file, nil, "Accept-Encoding", "identity").Want(200)
		if packed := f.Do("GET", file, nil).Want(200); string(packed.Body) != string(res.Body) { // net/http unpacks
			t.Errorf("%s: packed and unpacked differ", file)
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", file, csp)
		}
	}
	if strings.Contains(page, "://") {
		t.Errorf("/docs loads something from elsewhere:\n%s", page)
	}
}
