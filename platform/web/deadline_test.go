package web

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLazyDeadline(t *testing.T) {
	type key struct{}
	open := func(d time.Duration) (*lazyDeadline, context.CancelFunc) {
		parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "of the parent"))
		return &lazyDeadline{Context: parent, at: time.Now().Add(d)}, cancel
	}
	tests := []struct {
		name string
		d    time.Duration
		then func(l *lazyDeadline, cancelParent context.CancelFunc)
		want error
	}{
		{"expires", time.Nanosecond, func(*lazyDeadline, context.CancelFunc) {}, context.DeadlineExceeded},
		{"ends with its parent", time.Hour, func(_ *lazyDeadline, cancel context.CancelFunc) { cancel() }, context.Canceled},
		{"ends with its request", time.Hour, func(l *lazyDeadline, _ context.CancelFunc) { l.end() }, context.Canceled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, cancel := open(test.d)
			defer cancel()
			if at, ok := l.Deadline(); !ok || !at.Equal(l.at) {
				t.Errorf("deadline %s, %t", at, ok)
			}
			if l.Value(key{}) != "of the parent" || l.timed != nil {
				t.Errorf("value %v, timed context %v", l.Value(key{}), l.timed)
			}
			child, cancelChild := context.WithCancel(l)
			defer cancelChild()
			test.then(l, cancel)
			<-l.Done()
			<-child.Done()
			if err := l.Err(); !errors.Is(err, test.want) {
				t.Errorf("ended with %v, want %v", err, test.want)
			}
			if err := child.Err(); !errors.Is(err, test.want) {
				t.Errorf("what hangs on it ended with %v, want %v", err, test.want)
			}
			if l.Value(key{}) != "of the parent" {
				t.Errorf("value %v", l.Value(key{}))
			}
		})
	}
	l, cancel := open(time.Hour)
	cancel()
	l.end() // nobody has waited
	if err := l.Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("asked after the request's end: %v", err)
	}
}
