package web

import (
	"net/http/pprof"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// mountAdmin adds what only the admin listener serves. Nothing here asks for a credential: the listener is bound to the
// loopback interface, or to a network of the operator's own.
func (s *Server) mountAdmin(e *gin.Engine) {
	mountOperatorPage(e)
	e.GET("/livez", livez)
	e.GET("/healthz", livez)
	e.GET("/readyz", s.readyz)
	e.GET("/metrics", gin.WrapH(promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{})))

	e.GET("/debug/pprof/", gin.WrapF(pprof.Index))
	e.GET("/debug/pprof/cmdline", gin.WrapF(pprof.Cmdline))
	e.GET("/debug/pprof/profile", gin.WrapF(pprof.Profile))
	e.GET("/debug/pprof/symbol", gin.WrapF(pprof.Symbol))
	e.GET("/debug/pprof/trace", gin.WrapF(pprof.Trace))
	for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
		e.GET("/debug/pprof/"+name, gin.WrapH(pprof.Handler(name)))
	}
}
