package web

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/errs"
)

// Media types of request and response bodies.
const (
	jsonType       = "application/json"
	mergePatchType = "application/merge-patch+json"
)

// Errors of the request's outer form.
var (
	errBodyRequired    = errs.New(errs.Malformed, "body_required", "This call needs a body.")
	errBodyTooLarge    = errs.New(errs.TooLarge, "body_too_large", "The body is larger than this call accepts.")
	errMediaType       = errs.New(errs.Unsupported, "media_type_unsupported", "The body's Content-Type is not one that this call accepts.")
	errContentEncoding = errs.New(errs.Unsupported, "content_encoding_unsupported", "The body must not be compressed.")
	errQueryMalformed  = errs.New(errs.Malformed, "query_malformed", "The query string cannot be read.")
	errBodyUnread      = errs.New(errs.Malformed, "body_incomplete", "The body ended before it was complete, or came too slowly.")
)

// takeBody prepares the body for the operation: a stream is bounded by time alone; JSON is read, checked and handed on
// in memory.
func (r *route) takeBody(c *gin.Context, req *request) ([]byte, error) {
	switch {
	case r.op.Streams:
		return nil, r.openStream(c)
	case r.body == nil:
		return nil, nil
	}
	data, err := readAll(c, maxBodyBytes)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		if r.body.Required {
			return nil, errBodyRequired
		}
		return nil, nil
	}
	if err := r.checkMediaType(c.Request.Header); err != nil {
		return nil, err
	}
	fields, decodable, err := checkBody(data, r.types(), r.schema)
	if err != nil {
		return nil, err
	}
	req.violations = append(req.violations, fields...)
	if !decodable {
		return nil, errs.ErrInvalid.With(req.violations...)
	}
	return data, nil
}

// openStream lifts the limits of ordinary requests.
func (r *route) openStream(c *gin.Context) error {
	if !r.records {
		return nil
	}
	if err := r.checkMediaType(c.Request.Header); err != nil {
		return err
	}
	c.Request.Body = &streamBody{ReadCloser: c.Request.Body, c: c}
	return nil
}

// checkMediaType accepts JSON (for PATCH, merge patches too), or NDJSON where the operation reads records. A body
// without a Content-Type is taken for what the operation accepts.
func (r *route) checkMediaType(h http.Header) error {
	if encoding := h.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return errContentEncoding
	}
	value := h.Get("Content-Type")
	if value == "" {
		return nil
	}
	mediaType, params, err := mime.ParseMediaType(value)
	if err != nil || params["charset"] != "" && !strings.EqualFold(params["charset"], "utf-8") {
		return errMediaType
	}
	accepted := []string{jsonType}
	switch {
	case r.records:
		accepted = []string{NDJSON, "application/jsonl", "application/ndjson"}
	case r.op.Method == http.MethodPatch:
		accepted = []string{jsonType, mergePatchType}
	}
	if !slices.Contains(accepted, mediaType) {
		return errMediaType
	}
	return nil
}

// readAll reads a body of at most limit bytes.
func readAll(c *gin.Context, limit int64) ([]byte, error) {
	if c.Request.ContentLength > limit {
		return nil, errBodyTooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	if err != nil {
		return nil, unread(err)
	}
	setReadDeadline(c, time.Time{}) // else it would end the request itself
	return data, nil
}

// unread says why a body could not be read to its end: none of the reasons is the server's fault.
func unread(err error) error {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooLarge):
		return errBodyTooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return errRequestTimeout
	}
	return errBodyUnread.Wrap(err)
}

// checkQuery refuses queries that cannot be read, parameters that the operation does not know (they are mostly
// misspelt filters, and a filter that is not applied is worse than an error), and repeated ones.
func (r *route) checkQuery(raw string) ([]errs.Field, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, errQueryMalformed
	}
	var fields []errs.Field
	for name, values := range query {
		if f, bad := r.checkParameter(name, values); bad {
			fields = append(fields, f)
		}
	}
	slices.SortFunc(fields, func(a, b errs.Field) int { return strings.Compare(a.Param, b.Param) })
	return fields, nil
}

func (r *route) checkParameter(name string, values []string) (errs.Field, bool) {
	switch {
	case !r.query[name]:
		return errs.Field{Param: printable(name), Code: "unknown_parameter", Message: "This call has no such query parameter."}, true
	case len(values) > 1:
		return errs.Field{Param: name, Code: "duplicate", Message: "Must be given once."}, true
	case !isText(values[0]):
		return errs.Field{Param: name, Code: "not_text", Message: "Must be UTF-8 without NUL."}, true
	}
	return errs.Field{}, false
}

// maxEchoedName bounds how much of a name of the client's own choosing an answer repeats.
const maxEchoedName = 64

// printable makes a name fit to be repeated in an answer.
func printable(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) > maxEchoedName {
		name = strings.ToValidUTF8(name[:maxEchoedName], "") + "…"
	}
	return name
}

// checkBody parses a JSON body strictly and holds it against its schema. It returns the rules that the body breaks and
// whether it can be decoded all the same, so that the operation's own rules may be added; or an error for a body that
// is not JSON.
func checkBody(data []byte, types huma.Registry, schema *huma.Schema) (fields []errs.Field, decodable bool, err error) {
	tree, found, err := parseJSON(data)
	if err != nil {
		return nil, false, err
	}
	broken := validate(types, schema, tree)
	mistyped := func(f errs.Field) bool { return f.Code == codeType }
	decodable = !slices.ContainsFunc(found, mistyped) && !slices.ContainsFunc(broken, mistyped)
	return joinFields(found, broken), decodable, nil
}

// decodeStrict decodes data into v as a body with this schema is.
func decodeStrict(data []byte, types huma.Registry, schema *huma.Schema, v any) error {
	fields, _, err := checkBody(data, types, schema)
	if err != nil {
		return err
	}
	if err := errs.Violated(fields); err != nil {
		return err
	}
	if err := decodeJSON(data, v); err != nil {
		return errs.ErrInvalid.With(fieldOf(err.Error(), ""))
	}
	return nil
}
