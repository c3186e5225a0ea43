package telemetry

import (
	"io"
	"sync"
	"time"
)

const (
	bufferSize  = 32 << 10
	bufferDelay = 100 * time.Millisecond
)

// Buffer gathers lines that are written to it, for 100 ms or 32 KiB, whichever comes first, since a system call for each
// would cost a request more than the line's making. NewLogger has it write at once what is a warning or worse, and all
// that was before it. A process that is killed loses what it still holds.
//
// It is safe for concurrent use.
type Buffer struct {
	w     io.Writer
	mu    sync.Mutex
	lines []byte
	timer *time.Timer // runs while there are lines
}

// NewBuffer returns a Buffer in front of w. Call Flush when nothing more is written.
func NewBuffer(w io.Writer) *Buffer {
	b := &Buffer{w: w, lines: make([]byte, 0, bufferSize)}
	b.timer = time.AfterFunc(bufferDelay, b.Flush)
	return b
}

// Write implements io.Writer; it never fails.
func (b *Buffer) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) == 0 {
		b.timer.Reset(bufferDelay)
	}
	b.lines = append(b.lines, line...)
	if len(b.lines) >= bufferSize {
		b.write()
	}
	return len(line), nil
}

// Flush writes what has gathered.
func (b *Buffer) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.write()
}

func (b *Buffer) write() {
	if len(b.lines) > 0 {
		_, _ = b.w.Write(b.lines) // there is nowhere to report a broken log to
	}
	b.lines = b.lines[:0]
	if cap(b.lines) > 2*bufferSize { // an extraordinary line is no reason to keep so much
		b.lines = make([]byte, 0, bufferSize)
	}
}
