package rollout

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows what this process has counted since it started.
type collector struct{ r *Registry }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("strata_rollout_"+name, help, append([]string{"module"}, labels...), nil)
}

var (
	stageDesc      = desc("stage", "1 for the stage that the module is at in this process.", "stage")
	reachDesc      = desc("reach_ratio", "Share of the keys that the stage applies to.")
	versionDesc    = desc("version", "Version of the module's stage in this process.")
	durationDesc   = desc("call_duration_seconds", "Calls of a path, repeated reads included.", "path", "operation")
	errorsDesc     = desc("call_errors_total", "Calls of a path that failed.", "path", "operation")
	comparedDesc   = desc("compared_total", "Reads compared with the other path.")
	mismatchedDesc = desc("mismatched_total", "Comparisons with a difference that lasted.")
	droppedDesc    = desc("dropped_total", "Comparisons not made: the queue was full, or a path did not answer.")
	checkedDesc    = desc("hits_checked_total", "Cache hits compared with PostgreSQL.")
	staleDesc      = desc("hits_stale_total", "Compared cache hits that were stale.")
	lostDesc       = prometheus.NewDesc("strata_rollout_table_lost", "1 while the table of stages cannot be read.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		stageDesc, reachDesc, versionDesc, durationDesc, errorsDesc, comparedDesc, mismatchedDesc, droppedDesc,
		checkedDesc, staleDesc, lostDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	lost := 0.0
	if c.r.lost.Load() {
		lost = 1
	}
	send(lostDesc, prometheus.GaugeValue, lost)
	for _, m := range c.r.modules {
		s := m.current.Load()
		send(stageDesc, prometheus.GaugeValue, 1, m.name, string(s.Stage))
		send(reachDesc, prometheus.GaugeValue, float64(s.Reach)/Whole, m.name)
		send(versionDesc, prometheus.GaugeValue, float64(s.version), m.name)
		send(comparedDesc, prometheus.CounterValue, float64(m.counters.compared.Load()), m.name)
		send(mismatchedDesc, prometheus.CounterValue, float64(m.counters.mismatched.Load()), m.name)
		send(droppedDesc, prometheus.CounterValue, float64(m.counters.dropped.Load()), m.name)
		send(checkedDesc, prometheus.CounterValue, float64(m.counters.checked.Load()), m.name)
		send(staleDesc, prometheus.CounterValue, float64(m.counters.stale.Load()), m.name)
		for p := range paths {
			m.counters.reads[p].collect(ch, m.name, pathNames[p], "read")
			m.counters.writes[p].collect(ch, m.name, pathNames[p], "write")
		}
	}
}

// collect shows the calls with bounds of powers of two, where they are exact.
func (o *operation) collect(ch chan<- prometheus.Metric, labels ...string) {
	const finest = 10 // 2^10 units: 66 us
	var count uint64
	bounds := map[float64]uint64{}
	for i := range latencyBuckets {
		count += o.latency[i].Load()
		if last := i%latencySteps == latencySteps-1; last && latencyBound(i) >= time.Duration(1)<<(latencyUnit+finest) {
			bounds[latencyBound(i).Seconds()] = count
		}
	}
	if count == 0 {
		return
	}
	ch <- prometheus.MustNewConstHistogram(durationDesc, count, time.Duration(o.total.Load()).Seconds(), bounds, labels...)
	ch <- prometheus.MustNewConstMetric(errorsDesc, prometheus.CounterValue, float64(o.errors.Load()), labels...)
}
