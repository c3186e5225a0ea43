package web

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the HTTP listeners. The histogram's count is the number of requests.
type metrics struct {
	inFlight prometheus.Gauge
	requests *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "strata_http_requests_in_flight", Help: "Requests that are being answered.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "strata_http_request_duration_seconds",
			Help:    "Time to answer requests, by method, route and status.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method", "route", "status"}),
	}
	reg.MustRegister(m.inFlight, m.requests)
	return m
}

// of returns the series of a method, route and status.
func (m *metrics) of(method, route string, status int) prometheus.Observer {
	return m.requests.WithLabelValues(knownMethod(method), route, strconv.Itoa(status))
}

// knownMethod keeps clients from creating series with methods of their own.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
		return method
	}
	return "other"
}
