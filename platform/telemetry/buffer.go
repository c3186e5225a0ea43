package telemetry

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	bufferBatch = 100             // records, some 32 KiB of lines
	bufferMost  = 4 * bufferBatch // then whoever logs waits for the writer
	bufferDelay = 100 * time.Millisecond
)

// Buffer gathers records for 100 ms, or 100 of them, whichever comes first. A line that is made among requests costs
// three times as much as one that is made after another, and a system call for each would cost a request more than that.
// NewLogger has it write at once what is a warning or worse, and all that was before it. A process that is killed loses
// what it still holds.
//
// It is safe for concurrent use.
type Buffer struct {
	w io.Writer

	mu      sync.Mutex
	records []pending
	timer   *time.Timer // runs while there are records

	writing sync.Mutex // taken before mu
	written []pending  // the memory of the last batch
	lines   []byte
}

// pending is a record, and what makes a line of it.
type pending struct {
	to     slog.Handler
	record slog.Record
}

// NewBuffer returns a Buffer in front of w. Call Flush when nothing more is logged.
func NewBuffer(w io.Writer) *Buffer {
	b := &Buffer{w: w}
	b.timer = time.AfterFunc(bufferDelay, b.Flush)
	return b
}

// add takes a record that to, which writes to b, is to make a line of. Nothing in it may change later.
func (b *Buffer) add(to slog.Handler, r slog.Record) {
	b.mu.Lock()
	b.records = append(b.records, pending{to, r})
	n := len(b.records)
	switch n {
	case 1:
		b.timer.Reset(bufferDelay)
	case bufferBatch:
		b.timer.Reset(0)
	}
	b.mu.Unlock()
	if n >= bufferMost {
		b.Flush()
	}
}

// Write implements io.Writer, for the handlers of the records alone; it never fails.
func (b *Buffer) Write(line []byte) (int, error) {
	b.lines = append(b.lines, line...)
	return len(line), nil
}

// Flush writes what has gathered.
func (b *Buffer) Flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	b.records, b.written = b.written[:0], b.records
	b.mu.Unlock()
	for _, p := range b.written {
		_ = p.to.Handle(context.Background(), p.record) // it writes to b, which never fails
	}
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines) // there is nowhere to report a broken log to
	}
	clear(b.written)
	b.lines = b.lines[:0]
	if cap(b.lines) > 1<<18 { // an extraordinary line is no reason to keep so much
		b.lines = nil
	}
}
