//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A result is one line of the report.
type result struct {
	Row     string   `json:"row"`
	Call    string   `json:"call"`
	Stage   string   `json:"stage"`
	Against string   `json:"against"`
	Server  *figures `json:"server,omitempty"`
	Ceiling *figures `json:"ceiling,omitempty"`
	Bytes   int      `json:"body_bytes,omitempty"`
	Figure  spread   `json:"figure"`
	Unit    string   `json:"unit"`
	Target  float64  `json:"target"`
	AtMost  bool     `json:"at_most,omitempty"` // the target is a ceiling of the figure, not its floor
	Passed  bool     `json:"passed"`
}

func (r result) target() string {
	if r.AtMost {
		return "≤ " + number(r.Target)
	}
	return "≥ " + number(r.Target)
}

func (r result) verdict() string {
	if r.Passed {
		return "yes"
	}
	return "**no**"
}

// line is the result for a terminal.
func (r result) line() string {
	var text strings.Builder
	if r.Against != "" {
		text.WriteString(r.Against + ": ")
	}
	fmt.Fprintf(&text, "%s (%s .. %s) %s, target %s: %s", number(r.Figure.Median), number(r.Figure.Low), number(r.Figure.High),
		r.Unit, r.target(), strings.Trim(r.verdict(), "*"))
	for _, f := range []*figures{r.Server, r.Ceiling} {
		if f != nil {
			fmt.Fprintf(&text, "\n    %8.0f/s  p50 %s  p99 %s  CPU %s µs, PostgreSQL %s µs  %.1f allocations", f.PerSecond,
				millis(f.P50), millis(f.P99), micros(f.CPU), micros(f.Postgres), f.Allocations)
		}
	}
	return text.String()
}

// report is what a run writes.
type report struct {
	At          time.Time     `json:"at"`
	Go          string        `json:"go"`
	CPU         string        `json:"cpu"`
	Cores       int           `json:"cores"`
	Busy        float64       `json:"load_before"` // the machine's load average of a minute before the first row
	Connections int           `json:"connections"`
	Rounds      int           `json:"rounds"`
	Window      time.Duration `json:"window_ns"`
	Results     []result      `json:"results"`
}

func newReport(o options) *report {
	return &report{
		At: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), CPU: processor(), Cores: runtime.NumCPU(),
		Busy:        loadAverage(),
		Connections: o.connections, Rounds: o.rounds, Window: o.window,
	}
}

// processor is the CPU's name as Linux gives it.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo") // without it, no name
	_, after, _ := strings.Cut(string(info), "model name")
	name, _, _ := strings.Cut(after, "\n")
	return strings.Trim(name, "\t :")
}

// loadAverage is that of the last minute as Linux gives it.
func loadAverage() float64 {
	text, _ := os.ReadFile("/proc/loadavg") // without it, none
	first, _, _ := strings.Cut(string(text), " ")
	load, _ := strconv.ParseFloat(first, 64)
	return load
}

func (r *report) missed() bool {
	for _, res := range r.Results {
		if !res.Passed {
			return true
		}
	}
	return false
}

// write keeps the report as JSON and as a table in bench/results, and prints the table.
func (r *report) write(root, name string) error {
	dir := filepath.Join(root, "bench", "results")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(data, '\n'), 0o644); err != nil { //nolint:gosec // to be read
		return err
	}
	table := r.markdown()
	fmt.Print(table)
	if err := os.WriteFile(filepath.Join(dir, name+".md"), []byte(table), 0o644); err != nil { //nolint:gosec // to be read
		return err
	}
	if name != latest {
		return nil
	}
	return quote(filepath.Join(root, "docs", "performance.md"), table)
}

// The page quotes the latest results between these lines.
const quoteBegin, quoteEnd = "<!-- written by make bench -->\n", "<!-- until here -->\n"

func quote(page, table string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), quoteBegin)
	_, after, ends := strings.Cut(rest, quoteEnd)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the results", page)
	}
	return os.WriteFile(page, []byte(before+quoteBegin+"\n"+table+"\n"+quoteEnd+after), 0o644) //nolint:gosec // to be read
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %s, %d cores (%s), load average %s before; %d connections, %d rounds of %s. "+
		"Ranges are lowest to highest round.\n\n",
		r.At.Format(time.DateOnly), r.Go, r.Cores, r.CPU, number(r.Busy), r.Connections, r.Rounds, r.Window)
	b.WriteString("| call | stage | against | found | range | target | met |\n|---|---|---|---|---|---|---|\n")
	for _, res := range r.Results {
		fmt.Fprintf(&b, "| %s | %s | %s | %s %s | %s–%s | %s | %s |\n", code(res.Call), res.Stage, res.Against, number(res.Figure.Median),
			res.Unit, number(res.Figure.Low), number(res.Figure.High), res.target(), res.verdict())
	}
	b.WriteString("\n| call | stage | subject | requests/s | p50 ms | p99 ms | CPU µs | PostgreSQL's CPU µs | allocations |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	for i, res := range r.Results {
		if res.Server != nil && (i == 0 || r.Results[i-1].Row != res.Row) {
			b.WriteString(res.Server.markdown(res, "Strata"))
		}
		if res.Ceiling != nil {
			b.WriteString(res.Ceiling.markdown(res, res.Against))
		}
	}
	return b.String()
}

func (f *figures) markdown(r result, subject string) string {
	return fmt.Sprintf("| %s | %s | %s | %.0f | %s | %s | %s | %s | %.1f |\n", code(r.Call), r.Stage, subject, f.PerSecond,
		millis(f.P50), millis(f.P99), micros(f.CPU), micros(f.Postgres), f.Allocations)
}

// code sets a call's method and path in a fixed-width font, and nothing else.
func code(call string) string {
	method, rest, _ := strings.Cut(call, " ")
	if method != strings.ToUpper(method) || rest == "" || rest[0] != '/' {
		return call
	}
	path, note, noted := strings.Cut(rest, " ")
	if noted {
		note = " " + note
	}
	return "`" + method + " " + path + "`" + note
}

// number renders a figure with the digits that mean something.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// millis renders a time in milliseconds; one that was not measured is empty.
func millis(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond))
}

func micros(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Microsecond)) }
