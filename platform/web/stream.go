package web

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// Media types of streams.
const (
	NDJSON = "application/x-ndjson"
	CSV    = "text/csv"
)

const (
	// streamChunk is how much of a stream gathers before it is sent.
	streamChunk = 32 << 10
	// streamHold is how much of an answer is held back while the request's body is still being read; see RecordWriter.
	streamHold = 16 << 20
)

// streamStall is how long a client may take for one chunk, in either direction, before it is cut off. Tests shorten it.
var streamStall = 30 * time.Second

// Stream is the output of an operation that answers with many records.
type Stream struct {
	Body func(huma.Context)
}

// StreamNDJSON answers with one JSON value a line. An error of write before the first chunk was sent becomes a problem;
// later it breaks the connection, so that the client sees that the answer is not whole.
func StreamNDJSON(write func(ctx context.Context, w *RecordWriter) error) *Stream {
	return &Stream{Body: func(hc huma.Context) {
		c := humagin.Unwrap(hc)
		w := newRecordWriter(c, NDJSON)
		w.finish(write(c.Request.Context(), w))
	}}
}

// StreamCSV answers with a header line and records as RFC 4180 has them. Cells that a spreadsheet would take for a
// formula are neutralised with a leading apostrophe. Errors are as for StreamNDJSON.
func StreamCSV(header []string, write func(ctx context.Context, w *CSVWriter) error) *Stream {
	return &Stream{Body: func(hc huma.Context) {
		c := humagin.Unwrap(hc)
		w := &CSVWriter{records: newRecordWriter(c, CSV+"; charset=utf-8")}
		w.csv = csv.NewWriter(&w.records.buf)
		w.csv.UseCRLF = true
		err := w.Write(header)
		if err == nil {
			err = write(c.Request.Context(), w)
		}
		w.records.finish(err)
	}}
}

// RecordWriter writes the records of a stream in constant memory. It is not safe for concurrent use.
//
// Where the request has a body that is read as a stream too (NDJSONBody), it holds back up to 16 MiB of the answer
// until that body has been read: a client that sends everything before it reads anything would else wait for the
// server while the server waits for it.
type RecordWriter struct {
	c           *gin.Context
	contentType string
	control     *http.ResponseController
	buf         bytes.Buffer
	sent        bool
}

func newRecordWriter(c *gin.Context, contentType string) *RecordWriter {
	return &RecordWriter{c: c, contentType: contentType, control: http.NewResponseController(c.Writer)}
}

// Write adds one record as a line of JSON. Errors: what encoding v gives, and the client's disappearance or stalling.
func (w *RecordWriter) Write(v any) error {
	if err := encode(&w.buf, v); err != nil {
		return err
	}
	return w.flushFrom(streamChunk)
}

// flushFrom sends what has gathered if it is at least size bytes.
func (w *RecordWriter) flushFrom(size int) error {
	if w.reading() {
		size = max(size, streamHold)
	}
	if w.buf.Len() < size {
		return nil
	}
	return w.send()
}

func (w *RecordWriter) send() error {
	if err := w.c.Request.Context().Err(); err != nil {
		return err
	}
	if err := w.control.SetWriteDeadline(time.Now().Add(streamStall)); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	if !w.sent {
		if err := w.begin(); err != nil {
			return err
		}
	}
	if _, err := w.buf.WriteTo(w.c.Writer); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	return w.control.Flush()
}

// begin writes the answer's head.
func (w *RecordWriter) begin() error {
	if w.reading() {
		// Only now: where nothing has been answered yet, net/http itself takes in what a refused body still holds. One that
		// it finds unread after a full-duplex answer makes its next read of the connection panic, so that is closed.
		if err := w.control.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) { // HTTP/2 always is
			return fmt.Errorf("stream: %w", err)
		}
		w.c.Header("Connection", "close")
	}
	w.c.Header("Content-Type", w.contentType)
	w.c.Status(http.StatusOK)
	w.sent = true
	return nil
}

// reading reports whether the request's body has more.
func (w *RecordWriter) reading() bool {
	body, ok := w.c.Request.Body.(*streamBody)
	return ok && !body.ended
}

// finish sends the rest, or reports err in the way that is still possible.
func (w *RecordWriter) finish(err error) {
	if err == nil {
		err = w.send()
	}
	if err == nil {
		return
	}
	r := requestFrom(w.c.Request.Context())
	if !w.sent {
		_ = w.control.SetWriteDeadline(time.Now().Add(streamStall)) // that of an ordinary request may be over
		r.server.abort(w.c, problemOf(r, err))
		return
	}
	r.failure = err
	panic(http.ErrAbortHandler) // breaks off the chunked body
}

// CSVWriter writes the records of a CSV stream. It is not safe for concurrent use.
type CSVWriter struct {
	records *RecordWriter
	csv     *csv.Writer
}

// Write adds one record.
func (w *CSVWriter) Write(cells []string) error {
	safe := make([]string, len(cells))
	for i, cell := range cells {
		safe[i] = neutralise(cell)
	}
	if err := w.csv.Write(safe); err != nil {
		return err
	}
	w.csv.Flush()
	return w.records.flushFrom(streamChunk)
}

// neutralise keeps spreadsheets from running a cell (OWASP, CSV injection).
func neutralise(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(cell)[0]) {
		return "'" + cell
	}
	return cell
}
