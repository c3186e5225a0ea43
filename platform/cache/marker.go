package cache

import "time"

// A reading is what Redis' clock said, and until when the marker lives by it; zero where it does not.
type reading struct{ now, end time.Duration }

// measure tells until when a marker lives on this process' clock. Redis measures it on a wall clock, which may be set
// back, or stand still with its machine and go on later: either way a marker would outlive what it vouches for.
//
// Every answer bounds the difference between the two clocks from above, because Redis read its own after this process had
// read its own and asked. The largest of the differences seen since before the marker's beginning turns its end into one
// that is never too late: whatever has put Redis' clock back since has only made the difference smaller.
type measure struct {
	epoch string // clocks of two servers have nothing to do with each other
	seen  []difference
}

// A difference is by how much Redis' clock was ahead of this process', at most, when it was asked.
type difference struct{ asked, ahead time.Duration }

const (
	measuredFor   = 2 * freshFor // a clock set back by more ends the marker at once
	measuredEvery = 10 * time.Millisecond
)

// end takes in an answer to what was asked at a time of the process clock, and returns when on that clock the marker
// ends: in the past where it does not live, or began before the first answer or after this one, so that nothing is known of its age.
func (m *measure) end(epoch string, asked time.Duration, r reading) time.Duration {
	if epoch != m.epoch {
		m.epoch, m.seen = epoch, nil
	}
	first := 0
	for first < len(m.seen) && m.seen[first].asked < asked-measuredFor {
		first++
	}
	m.seen = append(m.seen[:0], m.seen[first:]...)
	m.note(difference{asked, r.now - asked})
	if oldest, began := m.seen[0], r.end-freshFor; began < oldest.asked+oldest.ahead || began > r.now {
		return 0
	}
	ahead := m.seen[0].ahead
	for _, d := range m.seen {
		ahead = max(ahead, d.ahead)
	}
	return r.end - ahead
}

// note keeps a difference, or the larger of two that are close to each other.
func (m *measure) note(d difference) {
	if n := len(m.seen); n > 0 && d.asked < m.seen[n-1].asked+measuredEvery {
		m.seen[n-1].ahead = max(m.seen[n-1].ahead, d.ahead)
		return
	}
	m.seen = append(m.seen, d)
}
