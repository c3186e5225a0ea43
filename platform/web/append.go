package web

import (
	"bytes"
	"time"
)

// JSONAppender is implemented by bodies of answers that write themselves. Reflection takes ten times as long, which is
// worth the lines where an answer is asked for on every request; a test of the type compares the two.
type JSONAppender interface {
	// AppendJSON appends the value as JSON.
	AppendJSON(b []byte) []byte
}

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return appendEscaped(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendEscaped(b []byte, s string) []byte {
	var out bytes.Buffer
	if err := jsonEncode(&out, s); err != nil {
		panic(err) // a string can always be encoded
	}
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// AppendTime appends t as the API shows times: RFC 3339 in UTC.
func AppendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339Nano)
	return append(b, '"')
}
