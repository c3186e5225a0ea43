package webtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/strata-accounts/strata/platform/web"
)

// contract is the OpenAPI document of an API.
type contract struct {
	doc    *openapi3.T
	router routers.Router
}

func newContract(document []byte) (*contract, error) {
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background(), openapi3.IsOpenAPI31OrLater()); err != nil {
		return nil, err
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		return nil, err
	}
	return &contract{doc, router}, nil
}

// check holds an answer against the document. Paths and methods that it does not know must be answered with a problem.
func (c *contract) check(req *http.Request, res *Response) error {
	if err := checkError(res); err != nil {
		return err
	}
	asked := req.Clone(req.Context())
	if req.Method == http.MethodHead {
		asked.Method = http.MethodGet // is described by GET
	}
	route, params, err := c.router.FindRoute(asked)
	if err != nil {
		if res.Status == http.StatusNotFound || res.Status == http.StatusMethodNotAllowed || strings.HasPrefix(req.URL.Path, "/docs") ||
			req.URL.Path == "/openapi.json" {
			return nil
		}
		return err
	}
	mediaType, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	lines := mediaType == web.NDJSON
	err = openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route},
		Status:                 res.Status,
		Header:                 res.Header,
		Body:                   io.NopCloser(bytes.NewReader(res.Body)),
		Options: &openapi3filter.Options{
			IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: lines || mediaType == web.CSV,
		},
	})
	if err != nil || !lines {
		return err
	}
	return c.checkLines(route.Operation.Responses.Status(res.Status).Value.Content.Get(web.NDJSON), res.Body)
}

// checkError holds the promises that every error keeps, documented or not.
func checkError(res *Response) error {
	if res.Header.Get("X-Request-Id") == "" {
		return errors.New("X-Request-ID is missing")
	}
	if res.Status < http.StatusBadRequest || len(res.Body) == 0 {
		return nil
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
		return fmt.Errorf("an error with Content-Type %q", ct)
	}
	var p web.Problem
	if err := json.Unmarshal(res.Body, &p); err != nil {
		return err
	}
	if p.Status != res.Status || p.Code == "" || p.Type == "" || p.Title == "" || p.Detail == "" || p.RequestID == "" {
		return errors.New("a member of the problem is missing or wrong")
	}
	return nil
}

// linesChecked is how many lines of a stream are held against their schema; all must be JSON.
const linesChecked = 100

// checkLines holds the lines of an NDJSON answer against x-line, where the operation describes its records.
func (c *contract) checkLines(media *openapi3.MediaType, body []byte) error {
	item, _ := media.Extensions["x-line"].(map[string]any)
	ref, _ := item["$ref"].(string)
	schema := c.doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
	for i, line := range bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var v any
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
		if schema == nil || i >= linesChecked {
			continue
		}
		if err := schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return nil
}
