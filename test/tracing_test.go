//go:build unix

package test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/strata-accounts/strata/platform/db/dbtest"
)

// TestTracing reads what a server sends to an OpenTelemetry collector: the caller's trace goes on through statements and
// calls of Redis, one that the caller does not record is left alone, background work is in none, and nothing personal is.
func TestTracing(t *testing.T) {
	t.Parallel()
	collector := collect(t)
	s := deploy(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.url, "REDIS_URL="+dbtest.Redis(t).URL).start()
	ada := s.signUp()

	const recorded, ignored = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
	credentials := credentials(ada.email, ada.password)
	s.Do("POST", "/v1/sessions", credentials, "Traceparent", "00-"+recorded+"-00f067aa0ba902b7-01").Want(http.StatusCreated)
	s.Do("POST", "/v1/sessions", credentials, "Traceparent", "00-"+ignored+"-00f067aa0ba902b7-00").Want(http.StatusCreated)
	s.signIn(ada).wantLive(t)
	s.root.Do("GET", "/v1/users?email="+ada.email, nil).Want(http.StatusOK)
	s.root.Do("GET", "/v1/users/"+ada.email, nil).Want(http.StatusNotFound)
	s.stop() // sends the last spans

	requests, systems := map[string]int{}, map[string]int{}
	for _, span := range collector.spans() {
		trace := hex.EncodeToString(span.GetTraceId())
		if trace == ignored {
			t.Errorf("%s: its caller does not record", span.GetName())
		}
		if span.GetKind() != tracepb.Span_SPAN_KIND_SERVER && len(span.GetParentSpanId()) == 0 {
			t.Errorf("%s: belongs to no request", span.GetName())
		}
		if trace == recorded {
			if span.GetKind() == tracepb.Span_SPAN_KIND_SERVER {
				requests[span.GetName()+" below "+hex.EncodeToString(span.GetParentSpanId())]++
			}
			systems[attributeOf(span, "db.system")+attributeOf(span, "db.system.name")]++
		}
	}
	if len(requests) != 1 || requests["POST /v1/sessions below 00f067aa0ba902b7"] != 1 {
		t.Errorf("the caller's trace goes on with %v", requests)
	}
	if systems["postgresql"] == 0 || systems["redis"] == 0 {
		t.Errorf("the trace has spans of %v", systems)
	}
	for _, secret := range append(s.deployment.secrets, ada.email) {
		if bytes.Contains(collector.received(), []byte(secret)) {
			t.Errorf("%q was sent to the collector", secret)
		}
	}
}

// A collector takes spans as OTLP over HTTP.
type collector struct {
	t   *testing.T
	url string

	mu   sync.Mutex
	body []byte
	got  []*tracepb.Span
}

func collect(t *testing.T) *collector {
	c := &collector{t: t}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		c.t.Errorf("export to %s: %v", r.URL.Path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.body = append(c.body, body...)
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.got = append(c.got, scope.GetSpans()...)
		}
	}
}

func (c *collector) spans() []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got
}

func (c *collector) received() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.body
}

func attributeOf(span *tracepb.Span, key string) string {
	for _, a := range span.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}
