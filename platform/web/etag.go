package web

import (
	"strconv"
	"strings"

	"github.com/strata-accounts/strata/platform/errs"
)

// Errors of conditional requests (RFC 9110, section 13).
var (
	ErrPreconditionFailed = errs.New(errs.Precondition, "precondition_failed",
		"The resource is not in the state that If-Match or If-None-Match asks for. Read it again.")
	ErrIfMatchMalformed = errs.New(errs.Malformed, "if_match_malformed",
		"If-Match and If-None-Match take a list of quoted entity tags, or *.")
)

// ETag returns the strong entity tag of a row's version.
func ETag(version int64) string {
	return `"` + strconv.FormatInt(version, 10) + `"`
}

// Conditional is embedded in the input of an operation whose resource has an ETag.
type Conditional struct {
	IfMatch     string `header:"If-Match" maxLength:"1024" doc:"Entity tags, one of which must be the resource's, or *."`
	IfNoneMatch string `header:"If-None-Match" maxLength:"1024" doc:"Entity tags, none of which may be the resource's, or *."`
}

// CheckVersion is CheckWrite for a row with this version.
func (c Conditional) CheckVersion(version int64) error { return c.CheckWrite(ETag(version)) }

// CheckWrite reports whether a resource whose current entity tag is etag ("" when it does not exist) may be written.
// Errors: ErrPreconditionFailed, ErrIfMatchMalformed.
func (c Conditional) CheckWrite(etag string) error {
	if c.IfMatch != "" {
		tags, ok := parseETags(c.IfMatch)
		if !ok {
			return ErrIfMatchMalformed
		}
		if !tags.match(etag, strong) {
			return ErrPreconditionFailed
		}
	}
	if c.IfNoneMatch != "" {
		tags, ok := parseETags(c.IfNoneMatch)
		if !ok {
			return ErrIfMatchMalformed
		}
		if tags.match(etag, weak) {
			return ErrPreconditionFailed
		}
	}
	return nil
}

// CheckRead decides about reading a resource whose current entity tag is etag: nil to answer with it, an error that becomes
// 304 when the client already holds it, or ErrPreconditionFailed and ErrIfMatchMalformed as CheckWrite has them.
func (c Conditional) CheckRead(etag string) error {
	if err := (Conditional{IfMatch: c.IfMatch}).CheckWrite(etag); err != nil {
		return err
	}
	if c.holds(etag) {
		return notModified(etag)
	}
	return nil
}

// holds reports whether the client already holds the representation tagged etag. A malformed If-None-Match
// counts as none: the client then gets the whole representation, which is always right.
func (c Conditional) holds(etag string) bool {
	if c.IfNoneMatch == "" {
		return false
	}
	tags, ok := parseETags(c.IfNoneMatch)
	return ok && tags.match(etag, weak)
}

// notModified is returned by a handler, as its error, to answer 304 with the resource's entity tag.
type notModified string

func (notModified) Error() string { return "not modified" }

type comparison bool

const (
	strong comparison = true  // weak tags never match (If-Match)
	weak   comparison = false // W/ is ignored (If-None-Match)
)

// etagList is a parsed If-Match or If-None-Match.
type etagList struct {
	any  bool
	tags []string
}

func (l etagList) match(etag string, cmp comparison) bool {
	if etag == "" {
		return false
	}
	if l.any {
		return true
	}
	for _, tag := range l.tags {
		if cmp == weak {
			tag = strings.TrimPrefix(tag, "W/")
		}
		if tag == etag {
			return true
		}
	}
	return false
}

// parseETags reads "*" or a comma-separated list of entity tags; empty list elements are allowed (RFC 9110, 5.6.1).
func parseETags(s string) (etagList, bool) {
	s = strings.Trim(s, " \t")
	if s == "*" {
		return etagList{any: true}, true
	}
	var l etagList
	for s != "" {
		tag, rest, ok := cutETag(s)
		if !ok {
			return etagList{}, false
		}
		if tag != "" {
			l.tags = append(l.tags, tag)
		}
		s = rest
	}
	return l, len(l.tags) > 0
}

// cutETag takes one list element and the comma after it off s.
func cutETag(s string) (tag, rest string, ok bool) {
	n := 0
	if strings.HasPrefix(s, "W/") {
		n = 2
	}
	if n < len(s) && s[n] == '"' {
		end := strings.IndexByte(s[n+1:], '"')
		if end < 0 || !isETagText(s[n+1:n+1+end]) {
			return "", "", false
		}
		n += end + 2
		tag = s[:n]
	}
	rest = strings.TrimLeft(s[n:], " \t")
	if rest == "" {
		return tag, "", tag != ""
	}
	if rest[0] != ',' {
		return "", "", false
	}
	return tag, strings.TrimLeft(rest[1:], " \t"), n != 2
}

func isETagText(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] == 0x7f {
			return false
		}
	}
	return true
}
