package telemetry

import (
	"database/sql"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a metrics registry that already tells about the Go runtime, the process and the build.
func NewRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return reg
}

// RegisterDBStats adds the connection pool's sql.DBStats under the label db_name.
func RegisterDBStats(reg prometheus.Registerer, name string, pool *sql.DB) error {
	return reg.Register(collectors.NewDBStatsCollector(pool, name))
}
