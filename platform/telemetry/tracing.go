package telemetry

import (
	"context"
	"fmt"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TracingConfig says which requests are traced, and where their spans go.
type TracingConfig struct {
	Endpoint string  // of an OTLP/HTTP collector, such as http://localhost:4318, without /v1/traces; empty: nothing is traced
	Sample   float64 // percent of the requests whose caller has not decided (W3C Trace Context)
	Version  string  // of the service
}

// OpenTracing returns where spans are recorded, and a function that sends the last ones. The provider is nil without an
// endpoint: then nothing that takes one is instrumented. The collector need not answer: spans that it does not take are
// dropped. OTEL_EXPORTER_OTLP_HEADERS and the other variables of the OpenTelemetry specification are heeded.
func OpenTracing(ctx context.Context, cfg TracingConfig) (trace.TracerProvider, func(context.Context) error, error) {
	if cfg.Endpoint == "" {
		return nil, func(context.Context) error { return nil }, nil
	}
	collector, err := url.JoinPath(cfg.Endpoint, "v1/traces")
	if err != nil {
		return nil, nil, fmt.Errorf("tracing endpoint: not a valid URL")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(collector))
	if err != nil {
		return nil, nil, fmt.Errorf("open tracing: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(requests{sdktrace.TraceIDRatioBased(cfg.Sample / 100)})),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "strata"), attribute.String("service.version", cfg.Version))),
	)
	return provider, provider.Shutdown, nil
}

// requests samples only what a request began: background work, such as the cache's look at Redis 40 times a second, is
// nobody's trace.
type requests struct{ sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (r requests) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.Kind != trace.SpanKindServer {
		return sdktrace.SamplingResult{Decision: sdktrace.Drop}
	}
	return r.Sampler.ShouldSample(p)
}
