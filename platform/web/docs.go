package web

import (
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"
)

// mountDocs serves the OpenAPI document. It is rendered on first use, when all modules have registered.
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
}
