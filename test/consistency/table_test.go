//go:build unix

package consistency

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// A row is what came of one fault. Reads of strict kinds are stale, and those of bounded kinds too old, when they began
// after a newer state was binding, which it had been for the worst age at most. Until it binds, for a second after a
// write past Strata, a state may be behind: by the worst allowed age at most. Latency is compared with that of requests
// past the cache. A write was not told when its client got no answer.
type row struct {
	counts
	fault string
	hits  float64 // percent of the cache's reads
}

type table []*row

// strict returns how many reads of strict kinds there are in all.
func (rows table) strict() (n uint64) {
	for _, r := range rows {
		n += uint64(r.strict.Load())
	}
	return n
}

func (rows table) print(t *testing.T) {
	t.Helper()
	var out strings.Builder
	out.WriteString("\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "fault\tstrict reads\tstale\tbounded reads\ttoo old\tnever committed\tworst age\tworst allowed\t"+
		"hit rate\tfailed\tof uncached\twrites\tnot told\trolled back\tforeign\t")
	for _, r := range rows {
		ratio := float64(r.cached.mean()) / float64(max(1, r.fresh.mean()))
		_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%.1f %%\t%d\t%.2f\t%d\t%d\t%d\t%d\t\n",
			r.fault, r.strict.Load(), r.stale.Load(), r.bounded.Load(), r.older.Load(), r.wrong.Load(),
			age(r.worst.Load()), age(r.oldest.Load()), r.hits, r.refused.Load()+r.lost.Load(), ratio,
			r.writes[applied].Load(), r.writes[unknown].Load(), r.writes[undone].Load()+r.foreign[undone].Load(), r.foreign[applied].Load())
	}
	_ = w.Flush() // to memory
	t.Log(out.String())
}

func age(ns int64) string { return time.Duration(ns).Round(time.Millisecond).String() }
