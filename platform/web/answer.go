package web

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// An answer is how the output of an operation becomes a response, found out at start.
type answer struct {
	status  []int // the field that overrides the operation's status; nil: none does
	body    []int // nil: there is none
	headers []outHeader
}

type outHeader struct {
	name  string
	field []int
}

// answerOf reads an output's fields: Status, Body, and strings that are headers. It panics on others.
func answerOf(out reflect.Type) answer {
	var a answer
	for _, f := range reflect.VisibleFields(out) {
		name := f.Tag.Get("header")
		switch {
		case f.Anonymous || len(f.Index) > 1 && name == "":
		case f.Name == "Status" && f.Type.Kind() == reflect.Int:
			a.status = f.Index
		case f.Name == "Body":
			a.body = f.Index
		case name != "" && f.Type.Kind() == reflect.String:
			a.headers = append(a.headers, outHeader{http.CanonicalHeaderKey(name), f.Index})
		default:
			panic(fmt.Sprintf("output %s: field %s is neither Status nor Body nor a header", out, f.Name))
		}
	}
	return a
}

// write sends an output, or no more than a status for nil. Errors: what encoding the body gives, before anything is sent.
func (a *answer) write(c *gin.Context, status int, out reflect.Value) error {
	if out.IsNil() {
		c.Status(status)
		return nil
	}
	out = out.Elem()
	h := c.Writer.Header()
	for _, header := range a.headers {
		if value := out.FieldByIndex(header.field).String(); value != "" {
			h[header.name] = []string{value}
		}
	}
	if a.status != nil {
		status = int(out.FieldByIndex(a.status).Int())
	}
	if a.body == nil {
		c.Status(status)
		return nil
	}
	if err := writeBody(c, status, jsonTypes, out.FieldByIndex(a.body).Addr().Interface()); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return nil
}

// Content-Types that many responses share; net/http only reads them.
var (
	jsonTypes    = []string{jsonType}
	problemTypes = []string{problemJSON}
)

// writeBody sends a body that a handler has returned. Errors: what encoding it gives, before anything is sent.
func writeBody(c *gin.Context, status int, contentType []string, body any) error {
	if stream, ok := body.(*func(huma.Context)); ok {
		(*stream)(humagin.NewContext(nil, c))
		return nil
	}
	b := buffers.Get().(*bytes.Buffer) //nolint:errcheck,forcetypeassert // nothing else is in there
	defer release(b)
	if err := encode(b, body); err != nil {
		return err
	}
	c.Writer.Header()["Content-Type"] = contentType
	c.Status(status)
	_, _ = c.Writer.Write(b.Bytes()) // a failing write means the client has gone
	return nil
}

// encode writes v as a line of JSON.
func encode(b *bytes.Buffer, v any) error {
	if a, ok := v.(JSONAppender); ok {
		b.Write(append(a.AppendJSON(b.AvailableBuffer()), '\n'))
		return nil
	}
	return jsonEncode(b, v)
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// release gives a buffer back, but not an extraordinary one, which is no reason to keep so much.
func release(b *bytes.Buffer) {
	const kept = 64 << 10
	if b.Cap() <= kept {
		b.Reset()
		buffers.Put(b)
	}
}
