package web

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"iter"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/errs"
)

// MaxLine is the longest line of an NDJSON body in bytes.
const MaxLine = 64 << 10

// ErrLineTooLong is the Err of a line over MaxLine.
var ErrLineTooLong = errs.New(errs.TooLarge, "line_too_long", "The line is longer than 64 KiB.")

// NDJSONBody is embedded in the input of a streaming operation that reads one T a line from its request body.
type NDJSONBody[T any] struct {
	body   io.Reader
	schema *huma.Schema
	types  huma.Registry
}

// Line is one line of an NDJSON body.
type Line[T any] struct {
	Number int // from 1; blank lines count but are not delivered
	Value  T
	Err    error // Malformed, or Invalid with pointers, or ErrLineTooLong: the line is not a T; Value is then zero
}

// open takes hold of the body.
func (b *NDJSONBody[T]) open(body io.Reader, types huma.Registry) {
	b.body, b.types, b.schema = body, types, types.Schema(reflect.TypeFor[T](), true, "")
}

// recordType tells Register the type of a line, for the OpenAPI document.
func (*NDJSONBody[T]) recordType() reflect.Type { return reflect.TypeFor[T]() }

// Lines delivers the lines in order. The second value is not nil once, at the end, if the body could not be read to its
// end: the client went away or stalled.
func (b *NDJSONBody[T]) Lines() iter.Seq2[Line[T], error] {
	return func(yield func(Line[T], error) bool) {
		body := bufio.NewReaderSize(b.body, MaxLine+len("\r\n"))
		for number := 1; ; number++ {
			text, err := readLine(body)
			line := Line[T]{Number: number}
			switch {
			case errors.Is(err, ErrLineTooLong):
				line.Err = err
			case err != nil && !errors.Is(err, io.EOF):
				yield(line, unread(err))
				return
			case len(text) > 0:
				line.Err = decodeStrict(text, b.types, b.schema, &line.Value)
			}
			if (len(text) > 0 || line.Err != nil) && !yield(line, nil) || errors.Is(err, io.EOF) {
				return
			}
		}
	}
}

// readLine returns the next line without its end, and io.EOF with the last one. Errors: ErrLineTooLong for a line that has
// been passed over, and the reader's.
func readLine(r *bufio.Reader) ([]byte, error) {
	text, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = ErrLineTooLong // after the last line comes an empty one
		}
		return nil, err
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) > MaxLine {
		return nil, ErrLineTooLong
	}
	return text, err
}

// streamBody is a request body of any length: it cuts off a client that stalls, and knows whether it was read to its end.
type streamBody struct {
	io.ReadCloser
	c     *gin.Context
	ended bool
}

// Read implements io.Reader.
func (b *streamBody) Read(p []byte) (int, error) {
	setReadDeadline(b.c, time.Now().Add(streamStall))
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || err != nil
	if errors.Is(err, io.EOF) { // after any other error the deadline is what ends net/http's own reading of the rest
		setReadDeadline(b.c, time.Time{}) // what is still to be done with the records may take its time
	}
	return n, err
}
