package rollout

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// A baseline is how fast each path was when it was last seen at work, by its name. It is renewed whenever the module moves:
// where the old path is at rest, the guard has nothing else to judge the new one by.
type baseline map[string]pathFigures

type pathFigures struct {
	Reads  figure `json:"reads"`
	Writes figure `json:"writes"`
}

// figure is a latency of the past.
type figure struct {
	P99 time.Duration `json:"p99"` // nanoseconds; 0: none is known
	At  time.Time     `json:"at"`  // when it was taken, by the database's clock
}

// from returns the figure that a tally gives, or the one before where it tells too little.
func (f figure) from(t operationTally, now time.Time) figure {
	if t.calls() < guardCalls {
		return f
	}
	return figure{t.quantile(.99), now}
}

// recent returns the latency, or 0 where it is too old to go by: the load is another one by now.
func (f figure) recent(now time.Time) time.Duration {
	if now.Sub(f.At) > guardMemory {
		return 0
	}
	return f.P99
}

// with returns the baseline with what a tally tells.
func (b baseline) with(t tally, now time.Time) baseline {
	renewed := baseline{}
	maps.Copy(renewed, b)
	for p, name := range pathNames {
		f := b[name]
		renewed[name] = pathFigures{f.Reads.from(t.Paths[p].Reads, now), f.Writes.from(t.Paths[p].Writes, now)}
	}
	return renewed
}

// Scan implements sql.Scanner.
func (b *baseline) Scan(src any) error {
	data, ok := src.([]byte)
	if text, is := src.(string); is {
		data, ok = []byte(text), true
	}
	if !ok {
		return fmt.Errorf("scan baseline: %T", src)
	}
	return json.Unmarshal(data, b)
}

// Value implements driver.Valuer.
func (b baseline) Value() (driver.Value, error) {
	data, err := json.Marshal(b)
	return string(data), err
}
