//go:build unix

package consistency

import (
	"fmt"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// A row is what came of one fault.
type row struct {
	counts
	fault string
	hits  float64 // percent of the cache's reads
}

type table []*row

func (rows table) print(t *testing.T) {
	t.Helper()
	var out strings.Builder
	out.WriteString("\n")
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...any) { _, _ = fmt.Fprintln(w, strings.Trim(fmt.Sprintln(cells...), "\n")) }
	line("fault\tstrict reads\tstale\tuncommitted\tbounded reads\tolder\tworst stale\toldest allowed\thit rate\tfailed\tlatency/uncached\twrites\tnot told\trolled back\tforeign\t")
	for _, r := range rows {
		ratio := float64(r.cached.mean()) / float64(max(1, r.fresh.mean()))
		line(fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%.1f %%\t%d\t%.2f\t%d\t%d\t%d\t%d\t",
			r.fault, r.strict.Load(), r.stale.Load(), r.wrong.Load(), r.bounded.Load(), r.older.Load(),
			age(r.worst.Load()), age(r.oldest.Load()), r.hits, r.refused.Load()+r.lost.Load(), ratio,
			r.writes[applied].Load(), r.writes[unknown].Load(), r.writes[undone].Load()+r.foreign[undone].Load(), r.foreign[applied].Load()))
	}
	_ = w.Flush() // to memory
	t.Log(out.String())
}

func age(ns int64) string { return time.Duration(ns).Round(time.Millisecond).String() }
