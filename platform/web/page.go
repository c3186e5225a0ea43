package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"github.com/strata-accounts/strata/platform/errs"
)

// ErrCursorInvalid reports a cursor that this server did not give out for this list with these filters.
var ErrCursorInvalid = errs.New(errs.Invalid, "cursor_invalid",
	"The cursor does not belong to this list with these filters. Start from the first page.").
	With(errs.Field{Param: "cursor", Code: "cursor_invalid", Message: "Is not a cursor of this list with these filters."})

// PageParams is embedded in the input of a list.
type PageParams struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"How many entries a page holds at most."`
	Cursor string `query:"cursor" maxLength:"2048" doc:"next_cursor of the page before; absent for the first page."`
}

// PageHeaders is embedded in the output of a list.
type PageHeaders struct {
	Link string `header:"Link" doc:"The next page, with rel=\"next\" (RFC 8288); absent on the last."`
}

const cursorMACLength = 16

// EncodeCursor seals position, which must survive encoding/json, as the cursor of the page after it. The cursor is
// good for this list with these filters only. It is authenticated, not encrypted: position must hold nothing that the
// reader of the list may not see.
func EncodeCursor(ctx context.Context, list string, filters, position any) (string, error) {
	payload, err := json.Marshal(position)
	if err != nil {
		return "", err
	}
	mac, err := cursorMAC(ctx, list, filters, payload)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(mac, payload...)), nil
}

// DecodeCursor opens a cursor into position, and reports whether there was one. Errors: ErrCursorInvalid.
func DecodeCursor(ctx context.Context, list string, filters any, cursor string, position any) (bool, error) {
	if cursor == "" {
		return false, nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(sealed) < cursorMACLength {
		return false, ErrCursorInvalid
	}
	mac, err := cursorMAC(ctx, list, filters, sealed[cursorMACLength:])
	if err != nil {
		return false, err
	}
	if !hmac.Equal(mac, sealed[:cursorMACLength]) {
		return false, ErrCursorInvalid
	}
	if err := json.Unmarshal(sealed[cursorMACLength:], position); err != nil {
		return false, ErrCursorInvalid.Wrap(err)
	}
	return true, nil
}

func cursorMAC(ctx context.Context, list string, filters any, payload []byte) ([]byte, error) {
	f, err := json.Marshal(filters)
	if err != nil {
		return nil, err
	}
	var key []byte
	if r := requestFrom(ctx); r != nil {
		key = r.server.secrets.cursor
	}
	h := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte(list), f} {
		sum := sha256.Sum256(part) // of fixed length, so that parts cannot run into each other
		h.Write(sum[:])
	}
	h.Write(payload)
	return h.Sum(nil)[:cursorMACLength], nil
}

// NextPage returns the Link header that leads to the page after cursor: this request's URL with that cursor. It returns
// zero for the empty cursor of the last page.
func NextPage(ctx context.Context, cursor string) PageHeaders {
	r := requestFrom(ctx)
	if cursor == "" || r == nil {
		return PageHeaders{}
	}
	q := r.in.URL.Query()
	q.Set("cursor", cursor)
	return PageHeaders{Link: "<" + r.in.URL.EscapedPath() + "?" + q.Encode() + `>; rel="next"`}
}
