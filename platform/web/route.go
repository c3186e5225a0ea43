package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/strata-accounts/strata/platform/db"
	"github.com/strata-accounts/strata/platform/errs"
)

// route is an operation as it is served: what Register found out about it at start, so that requests need not.
type route struct {
	api         *API
	op          Operation
	auth        Auth
	limit       Limit  // zero: none
	produces    string // media type of success
	parameters  []parameter
	query       map[string]bool // known query parameters
	bodyField   []int
	answer      answer
	run         func(c *gin.Context, req *request, body []byte) error
	body        *huma.RequestBody
	schema      *huma.Schema // of a JSON body
	records     bool         // the body is NDJSON
	idempotent  bool
	conditional bool
	recordType  reflect.Type
	status      int
	success     func() outcome // looked up once
}

// recorder is implemented by NDJSONBody.
type recorder interface {
	recordType() reflect.Type
	open(body io.Reader, types huma.Registry)
}

func newRoute(api *API, op Operation, in, out reflect.Type) *route {
	r := &route{api: api, op: op, auth: op.Auth, query: map[string]bool{}, status: defaultStatus(op, out), produces: jsonType}
	r.success = sync.OnceValue(func() outcome { return api.server.outcomeOf(op.Method, op.Path, r.status) })
	if len(op.Answers) > 0 {
		r.produces = op.Answers[0]
	}
	if rec, ok := reflect.New(in).Interface().(recorder); ok {
		r.records, r.recordType = true, rec.recordType()
	}
	if f, ok := in.FieldByName("Body"); ok {
		r.body, r.bodyField = &huma.RequestBody{Content: map[string]*huma.MediaType{}}, f.Index
	}
	_, r.conditional = in.FieldByName("Conditional")
	r.parameters, r.answer = parametersOf(r.types(), in), answerOf(out)
	for _, p := range r.parameters {
		if p.in == "query" {
			r.query[p.name] = true
		}
	}
	if r.idempotent = op.Method == http.MethodPost && !op.Streams; r.idempotent && api.server.db == nil {
		panic(fmt.Sprintf("operation %s: idempotency keys need Deps.DB", op.ID))
	}
	if op.RateLimit != "" {
		limit, ok := api.server.cfg.Limits[op.RateLimit]
		if !ok {
			panic(fmt.Sprintf("operation %s: no limit is named %q", op.ID, op.RateLimit))
		}
		r.limit = limit
	}
	if r.auth.Self != "" && r.auth.Self != "*" && !strings.Contains(op.Path, "{"+r.auth.Self+"}") {
		panic(fmt.Sprintf("operation %s: no path parameter is named %q", op.ID, r.auth.Self))
	}
	return r
}

func (r *route) types() huma.Registry { return r.api.huma.OpenAPI().Components.Schemas }

// serve is the operation as the router calls it.
func (r *route) serve(c *gin.Context) {
	req := requestFrom(c.Request.Context())
	req.route = r
	if !r.op.Streams {
		req.at = req.began.Add(r.api.server.cfg.RequestTimeout)
		defer req.end()
	}
	key := c.Request.Header["Idempotency-Key"]
	keyed := r.idempotent && len(key) > 0
	if keyed {
		// A client that goes away will ask again what came of it: it is done to its end, since what was interrupted while it
		// was being committed may be done or not.
		req.Context = db.WithCommit(context.WithoutCancel(req.Context), req.committing)
	}
	body, err := r.admit(c, req)
	if err != nil {
		r.fail(c, req, err)
		return
	}
	finish := func() {
		if err := r.run(c, req, body); err != nil {
			r.fail(c, req, err)
		}
	}
	if keyed {
		r.api.server.idempotently(c, req, key, body, finish)
		return
	}
	finish()
}

// decode fills the input, and holds it against its rules; those of the body's schema have been looked at.
func (r *route) decode(c *gin.Context, req *request, in any, body []byte) error {
	v := reflect.ValueOf(in).Elem()
	broken, err := r.bind(c, v)
	if err != nil {
		return err
	}
	if len(body) > 0 {
		if err := decodeJSON(body, v.FieldByIndex(r.bodyField).Addr().Interface()); err != nil {
			broken = append(broken, fieldOf(err.Error(), ""))
		}
	}
	if len(broken) > 0 {
		return errs.ErrInvalid.With(append(req.violations, broken...)...)
	}
	if records, ok := in.(recorder); ok {
		records.open(c.Request.Body, r.types())
	}
	return req.check(in)
}

// fail answers with what went wrong, or with what has not changed.
func (r *route) fail(c *gin.Context, req *request, err error) {
	var unchanged notModified
	if errors.As(err, &unchanged) {
		c.Writer.Header()["Etag"] = []string{string(unchanged)}
		c.Status(http.StatusNotModified)
		return
	}
	r.api.server.abort(c, problemOf(req, err))
}

// admit refuses what must not reach the handler, cheapest checks first, and returns a JSON body's bytes.
func (r *route) admit(c *gin.Context, req *request) ([]byte, error) {
	if !accepts(c.Request.Header, r.produces, r.op.Answers) {
		return nil, errNotAcceptable
	}
	caller, err := r.api.server.identify(req, r.auth, c.Request.Header)
	if err != nil {
		return nil, err
	}
	req.caller = caller
	if err := r.auth.authorize(caller, c.Param); err != nil {
		return nil, err
	}
	if err := r.throttle(req); err != nil {
		return nil, err
	}
	if c.Request.URL.RawQuery != "" {
		if req.violations, err = r.checkQuery(c.Request.URL.RawQuery); err != nil {
			return nil, err
		}
	}
	if r.conditional {
		joinHeader(c.Request.Header, "If-Match")
		joinHeader(c.Request.Header, "If-None-Match")
	}
	return r.takeBody(c, req)
}

// throttle applies the operation's limit to the client's address. A key with the operation's scope has none: it acts for
// all the clients of an application.
func (r *route) throttle(req *request) error {
	if r.limit.Requests == 0 || r.auth.Scope != "" && req.caller.Has(r.auth.Scope) {
		return nil
	}
	d, err := r.api.server.limiter.Allow(req, r.op.RateLimit+":"+Network(req.info.IP), r.limit)
	if err != nil {
		return err
	}
	ReportLimit(req, r.op.RateLimit, d)
	return d.Err()
}

// Network is what counts as one client: an IPv4 address, or the /64 network of an IPv6 address, which is what a subscriber
// is given. What is no address is returned as it is.
func Network(ip string) string {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Unmap().Is4() {
		return ip
	}
	prefix, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return prefix.String()
}

// joinHeader makes one line of a list header that came in several (RFC 9110, 5.3).
func joinHeader(h http.Header, name string) {
	if values := h.Values(name); len(values) > 1 {
		h.Set(name, strings.Join(values, ", "))
	}
}

// accepts reports whether the client takes one of the media types that the operation answers with.
func accepts(h http.Header, produces string, answers []string) bool {
	values := h["Accept"]
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == produces) {
		return true
	}
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		if acceptsType(part, produces) || slices.ContainsFunc(answers, func(t string) bool { return acceptsType(part, t) }) {
			return true
		}
	}
	return false
}

// acceptsType matches one media range with a media type; a weight of 0 excludes (RFC 9110, 12.4.2).
func acceptsType(mediaRange, mediaType string) bool {
	name, params, _ := strings.Cut(mediaRange, ";")
	for param := range strings.SplitSeq(params, ";") {
		if q, ok := strings.CutPrefix(strings.ReplaceAll(param, " ", ""), "q=0"); ok && strings.Trim(q, ".0") == "" {
			return false
		}
	}
	name = strings.ToLower(strings.TrimSpace(name))
	kind, _, _ := strings.Cut(mediaType, "/")
	return name == "*/*" || name == kind+"/*" || name == mediaType
}
