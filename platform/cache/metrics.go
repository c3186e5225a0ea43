package cache

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics is the collector of everything an operator may want to know; see docs/cache.md.
type metrics struct {
	c *Cache

	reads, bypasses, rejected, checks *prometheus.CounterVec

	applied, flushes, relayed                prometheus.Counter
	syncFailures, relayFailures, unconfirmed prometheus.Counter
	relayLag, writeWait                      prometheus.Histogram
	leading, instances                       prometheus.Gauge

	entries, bytes, leased, believed, breaker *prometheus.Desc
}

// kindMetrics are the counters of one kind, looked up once.
type kindMetrics struct {
	hitProcess, hitRedis, misses                  prometheus.Counter
	bypassAsked, bypassTransaction, bypassBreaker prometheus.Counter
	bypassStale, bypassDown, bypassBusy           prometheus.Counter
	rejectedProcess, rejectedRedis                prometheus.Counter
	checkSame, checkStale, checkFailed            prometheus.Counter
}

func newMetrics(c *Cache) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "strata_cache_" + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "strata_cache_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "strata_cache_" + name, Help: help})
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("strata_cache_"+name, help, nil, nil)
	}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "strata_cache_" + name, Help: help,
			Buckets: []float64{.0005, .001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		})
	}
	return &metrics{
		c:             c,
		reads:         vec("reads_total", "Reads by who answered: process, redis or database.", "kind", "tier"),
		bypasses:      vec("bypasses_total", "Reads that passed a tier by, by reason.", "kind", "reason"),
		rejected:      vec("fills_rejected_total", "Values not kept because an invalidation came first, they are too large, or too many wait.", "kind", "tier"),
		checks:        vec("checks_total", "Served entries compared with PostgreSQL: same, stale or failed.", "kind", "result"),
		applied:       counter("invalidations_total", "Entries of the invalidation log applied by this instance."),
		flushes:       counter("flushes_total", "Times this instance forgot everything: a new epoch, or a gap in the log."),
		relayed:       counter("relayed_total", "Outbox rows relayed by this instance."),
		syncFailures:  counter("sync_failures_total", "Lease renewals that failed."),
		relayFailures: counter("relay_failures_total", "Relay steps that PostgreSQL failed."),
		unconfirmed:   counter("unconfirmed_writes_total", "Writes that Redis did not confirm under a live marker."),
		relayLag:      histogram("relay_lag_seconds", "Age of outbox rows when read by the relay."),
		writeWait:     histogram("write_wait_seconds", "Time from COMMIT until a write was acknowledged."),
		leading:       gauge("relay_leading", "1 while this instance is the relay."),
		instances:     gauge("instances", "Live instances, this one included."),
		entries:       desc("process_entries", "Entries in the process."),
		bytes:         desc("process_bytes", "Bytes of the entries in the process, estimated."),
		leased:        desc("process_leased_ratio", "Share of the key groups whose lease is valid; 0 means that the process tier serves nothing."),
		believed:      desc("redis_believed_ratio", "Share of the key groups whose marker lives by this process' clock; 0 means that Redis serves nothing."),
		breaker:       desc("breaker_open_ratio", "Share of the key groups whose Redis does not answer."),
	}
}

func (m *metrics) kind(kind string) *kindMetrics {
	return &kindMetrics{
		hitProcess:        m.reads.WithLabelValues(kind, "process"),
		hitRedis:          m.reads.WithLabelValues(kind, "redis"),
		misses:            m.reads.WithLabelValues(kind, "database"),
		bypassAsked:       m.bypasses.WithLabelValues(kind, "asked"),
		bypassTransaction: m.bypasses.WithLabelValues(kind, "transaction"),
		bypassBreaker:     m.bypasses.WithLabelValues(kind, "breaker"),
		bypassStale:       m.bypasses.WithLabelValues(kind, "no_marker"),
		bypassDown:        m.bypasses.WithLabelValues(kind, "redis_error"),
		bypassBusy:        m.bypasses.WithLabelValues(kind, "being_filled"),
		rejectedProcess:   m.rejected.WithLabelValues(kind, "process"),
		rejectedRedis:     m.rejected.WithLabelValues(kind, "redis"),
		checkSame:         m.checks.WithLabelValues(kind, "same"),
		checkStale:        m.checks.WithLabelValues(kind, "stale"),
		checkFailed:       m.checks.WithLabelValues(kind, "failed"),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.reads, m.bypasses, m.rejected, m.checks, m.applied, m.flushes, m.relayed, m.syncFailures, m.relayFailures,
		m.unconfirmed, m.relayLag, m.writeWait, m.leading, m.instances,
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.collectors() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{m.entries, m.bytes, m.leased, m.believed, m.breaker} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.collectors() {
		c.Collect(ch)
	}
	entries, bytes := m.c.local.usage()
	now, leased, believed, open := clock(), 0, 0, 0
	for _, g := range m.c.groups {
		if g.lease.valid(now) {
			leased++
		}
		if g.believes(now) != nil {
			believed++
		}
		if m.c.shared != nil && m.c.shared.breaker(g.index).open.Load() {
			open++
		}
	}
	groups := float64(len(m.c.groups))
	for d, v := range map[*prometheus.Desc]float64{
		m.entries: float64(entries), m.bytes: float64(bytes),
		m.leased: float64(leased) / groups, m.believed: float64(believed) / groups, m.breaker: float64(open) / groups,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
}
