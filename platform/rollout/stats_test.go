package rollout

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/strata-accounts/strata/platform/errs"
)

func TestLatencyBucketsCoverEveryDuration(t *testing.T) {
	for i := range latencyBuckets {
		bound := latencyBound(i)
		if got := latencyBucket(bound - 1); got != i {
			t.Fatalf("%v falls in bucket %d, want %d", bound-1, got, i)
		}
		if got := latencyBucket(bound); got != min(i+1, latencyBuckets-1) {
			t.Fatalf("%v falls in bucket %d, want %d", bound, got, i+1)
		}
	}
	for d, want := range map[time.Duration]int{-1: 0, 0: 0, time.Hour: latencyBuckets - 1} {
		if got := latencyBucket(d); got != want {
			t.Errorf("%v falls in bucket %d, want %d", d, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	c := newCounters(nil)
	for i := range 1000 {
		c.reads[repository].observe(time.Duration(i+1)*time.Millisecond, nil)
	}
	p := c.tally().Paths[repository].Reads
	for share, want := range map[float64]time.Duration{.5: 500 * time.Millisecond, .99: 990 * time.Millisecond} {
		if got := p.quantile(share); got < want || got > want*9/8 {
			t.Errorf("quantile %v: %v, want %v to an eighth above", share, got, want)
		}
	}
	if got := c.tally().Paths[direct].Writes.quantile(.99); got != 0 {
		t.Errorf("without calls: %v", got)
	}
}

func TestAnswersAreNoFailures(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errs.New(errs.NotFound, "x", ""), false},
		{errs.New(errs.Conflict, "x", ""), false},
		{errs.ErrCanceled, false},
		{fmt.Errorf("read: %w", context.Canceled), false},
		{errs.ErrBusy, true},
		{errs.ErrTimeout, true},
		{fmt.Errorf("column does not exist"), true},
	} {
		if got := failed(tt.err); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestOutageIsNoPathsFailure restarts PostgreSQL under the path that answers for all keys: the guard must not move back.
func TestOutageIsNoPathsFailure(t *testing.T) {
	c := newCounters(nil)
	for range guardCalls {
		c.reads[cached].observe(time.Millisecond, fmt.Errorf("users: %w", errs.ErrUnavailable.Wrap(io.ErrUnexpectedEOF)))
	}
	row := stageRow{Setting: Setting{Cached, Whole}}
	w := watch{}
	w.judge(time.Now(), Spec{}, row, fleet{})
	if reason := w.judge(time.Now(), Spec{}, row, fleet{tally: c.tally()}); reason != "" {
		t.Errorf("the guard moves back: %s", reason)
	}
}

func TestTalliesAddAndSubtract(t *testing.T) {
	c := newCounters([]string{"ByID"})
	c.reads[direct].observe(time.Millisecond, nil)
	c.compare("ByID", true)
	first := c.tally()
	c.reads[direct].observe(time.Second, errs.ErrBusy)
	c.writes[cached].observe(time.Microsecond, nil)
	c.compare("ByID", false)
	c.dropped.Add(3)
	since := c.tally().minus(first)
	if since.Compared != 1 || since.Mismatched != 1 || since.Dropped != 3 || since.Methods["ByID"] != 1 ||
		since.Paths[direct].calls() != 1 || since.Paths[direct].errorRate() != 1 || since.Paths[cached].calls() != 1 {
		t.Errorf("since the first: %+v", since)
	}
	var read tally
	data, err := json.Marshal(since)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatal(err)
	}
	if again := read.plus(first); !reflect.DeepEqual(again, c.tally()) {
		t.Errorf("first and rest are %+v, want %+v", again, c.tally())
	}
}
