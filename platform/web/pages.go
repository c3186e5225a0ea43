package web

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
)

//go:embed docs/index.html docs/start.js docs/*.gz operator
var pageFiles embed.FS

// pagePolicy lets a page load what this server serves, and nothing else.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// mountDocs serves the OpenAPI document and a reader for it. The document is rendered on first use, when all modules
// have registered.
func (s *Server) mountDocs(e *gin.Engine) {
	document := sync.OnceValues(s.api.OpenAPI)
	e.GET("/openapi.json", func(c *gin.Context) {
		doc, err := document()
		if err != nil {
			s.abort(c, problemOf(c.Request.Context(), err))
			return
		}
		c.Data(http.StatusOK, jsonType, doc)
	})
	e.GET("/docs", pageFile("docs/index.html", "text/html; charset=utf-8"))
	e.GET("/docs/start.js", pageFile("docs/start.js", "text/javascript; charset=utf-8"))
	e.GET("/docs/swagger-ui-bundle.js", pageFile("docs/swagger-ui-bundle.js.gz", "text/javascript; charset=utf-8"))
	e.GET("/docs/swagger-ui.css", pageFile("docs/swagger-ui.css.gz", "text/css; charset=utf-8"))
}

// mountOperatorPage serves a page that shows the instance's health, its metrics and the modules' stages as they change.
func mountOperatorPage(e *gin.Engine) {
	e.GET("/", pageFile("operator/index.html", "text/html; charset=utf-8"))
	e.GET("/operator/page.js", pageFile("operator/page.js", "text/javascript; charset=utf-8"))
	e.GET("/operator/page.css", pageFile("operator/page.css", "text/css; charset=utf-8"))
}

// pageFile serves an embedded file; packed ones as they are, to clients that can unpack.
func pageFile(name, contentType string) gin.HandlerFunc {
	data, err := pageFiles.ReadFile(name)
	if err != nil {
		panic(err) // the files are embedded
	}
	packed := strings.HasSuffix(name, ".gz")
	return func(c *gin.Context) {
		c.Header("Content-Security-Policy", pagePolicy)
		c.Header("Referrer-Policy", "no-referrer")
		body := data
		if packed {
			c.Header("Cache-Control", "public, max-age=3600")
			c.Header("Vary", "Accept-Encoding")
			if strings.Contains(c.GetHeader("Accept-Encoding"), "gzip") {
				c.Header("Content-Encoding", "gzip")
			} else {
				body = unpack(data)
			}
		}
		c.Data(http.StatusOK, contentType, body)
	}
}

func unpack(data []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = io.ReadAll(r)
	}
	if err != nil {
		panic(err) // the files are embedded
	}
	return data
}
