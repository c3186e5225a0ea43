//go:build linux

// Command bench measures Strata against its ceilings: the built server in production settings on a real PostgreSQL and
// Redis, and in the same run, on the same machine, handlers that do nothing but the one thing. The two are taken in turn,
// so that a busy machine slows both.
//
//	go run ./bench                                  every row, about ten minutes
//	go run ./bench -run session -rounds 3 -for 2s   a row or two, while working on them
//
// docs/performance.md tells what the rows mean.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// errMissed ends a strict run in which a target was missed.
var errMissed = errors.New("a target was missed")

// latest is the name of the results of all rows.
const latest = "latest"

// options are the flags.
type options struct {
	run         *regexp.Regexp
	rounds      int
	window      time.Duration
	connections int
	out         string
	profile     string
	strict      bool
}

func main() {
	if encoded := os.Getenv(ceilingVariable); encoded != "" {
		fmt.Fprintln(os.Stderr, runCeiling(encoded))
		os.Exit(1)
	}
	runtime.LockOSThread() // the kernel ends child processes with the thread that started them
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, parse())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse() options {
	var o options
	pattern := flag.String("run", "", "measure only the rows whose names match this regular expression")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each subject is measured")
	flag.DurationVar(&o.window, "for", 3*time.Second, "how long each time")
	flag.IntVar(&o.connections, "connections", 32, "connections of the load generator")
	flag.StringVar(&o.out, "out", "", "name of the results in bench/results (default latest, or partial with -run)")
	flag.StringVar(&o.profile, "profile", "", "directory for a CPU and an allocation profile of the server in each row")
	flag.BoolVar(&o.strict, "strict", false, "fail when a target is missed")
	flag.Parse()
	var err error
	if o.run, err = regexp.Compile(*pattern); err != nil {
		fmt.Fprintln(os.Stderr, "bench: -run:", err)
		os.Exit(2)
	}
	if o.out == "" {
		o.out = latest
		if *pattern != "" {
			o.out = "partial"
		}
	}
	return o
}

// run measures the rows, and keeps and prints what it has when one cannot be measured.
func run(ctx context.Context, o options) (err error) {
	m, err := newMachine(ctx)
	if err != nil {
		return err
	}
	defer m.close()
	b := &bench{options: o, machine: m}
	report := newReport(o)
	var failed error
	for _, r := range rows() {
		if !o.run.MatchString(r.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", r.name)
		results, err := r.measure(ctx, b)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", r.name, err))
			continue
		}
		for _, res := range results {
			res.Row, res.Call, res.Stage = r.name, r.call, r.stage
			report.Results = append(report.Results, res)
			fmt.Fprintln(os.Stderr, "  "+res.line())
		}
	}
	if err := report.write(m.root, o.out); err != nil {
		return errors.Join(failed, err)
	}
	if err := errors.Join(failed, ctx.Err()); err != nil {
		return err
	}
	if o.strict && report.missed() {
		return errMissed
	}
	return nil
}
