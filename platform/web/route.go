package web

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// route is an operation as it is served: what Register found out about it at start, so that requests need not.
type route struct {
	api         *API
	op          Operation
	auth        Auth
	limit       Limit           // zero: none
	produces    string          // media type of success
	query       map[string]bool // known query parameters
	body        *huma.RequestBody
	schema      *huma.Schema // of a JSON body
	records     bool         // the body is NDJSON
	idempotent  bool
	conditional bool
	recordType  reflect.Type
	status      int
}

// recorder is implemented by NDJSONBody.
type recorder interface{ recordType() reflect.Type }

func newRoute(api *API, op Operation, in, out reflect.Type) *route {
	r := &route{api: api, op: op, auth: op.Auth, query: map[string]bool{}, status: defaultStatus(op, out), produces: jsonType}
	if len(op.Answers) > 0 {
		r.produces = op.Answers[0]
	}
	if rec, ok := reflect.New(in).Interface().(recorder); ok {
		r.records, r.recordType = true, rec.recordType()
	}
	if _, ok := in.FieldByName("Body"); ok {
		r.body = &huma.RequestBody{Content: map[string]*huma.MediaType{}}
	}
	_, r.conditional = in.FieldByName("Conditional")
	r.collectQuery(in)
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

// collectQuery notes the query parameters that the input declares.
func (r *route) collectQuery(in reflect.Type) {
	for _, f := range reflect.VisibleFields(in) {
		if name, _, _ := strings.Cut(f.Tag.Get("query"), ","); name != "" {
			r.query[name] = true
		}
	}
}

// serve is the middleware of the operation: everything between the router and the decoded input.
func (r *route) serve(hc huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(hc)
	req := requestFrom(c.Request.Context())
	req.route = r
	if !r.op.Streams {
		ctx, cancel := context.WithTimeout(req.Context, r.api.server.cfg.RequestTimeout)
		defer cancel()
		req.Context = ctx
	}
	body, err := r.admit(c, req)
	if err != nil {
		r.api.server.abort(c, problemOf(req, err))
		return
	}
	if key := c.Request.Header.Values("Idempotency-Key"); r.idempotent && len(key) > 0 {
		r.api.server.idempotently(c, req, key, body, func() { next(hc) })
		return
	}
	next(hc)
}

// admit refuses what must not reach the handler, cheapest checks first, and returns a JSON body's bytes.
func (r *route) admit(c *gin.Context, req *request) ([]byte, error) {
	if !accepts(c.Request.Header, r.produces, r.op.Answers) {
		return nil, errNotAcceptable
	}
	c.Request.Header.Del("Accept") // huma need not negotiate again
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

// throttle applies the operation's limit to the client's address.
func (r *route) throttle(req *request) error {
	if r.limit.Requests == 0 {
		return nil
	}
	d, err := r.api.server.limiter.Allow(req, r.op.RateLimit+":"+network(req.info.IP), r.limit)
	if err != nil {
		return err
	}
	ReportLimit(req, r.op.RateLimit, d)
	return d.Err()
}

// network is what an address is limited by: itself, or for IPv6 its /64, since that is what one customer is given.
func network(ip string) string {
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
