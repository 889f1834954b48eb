package gateway

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// received sets the time in which a request must have come; bundles may take longer than submissions.
func received(header *fasthttp.RequestHeader) fasthttp.RequestConfig {
	if strings.HasPrefix(string(header.RequestURI()), "/v1/flows") {
		return fasthttp.RequestConfig{ReadTimeout: uploadTimeout}
	}
	return fasthttp.RequestConfig{}
}

// handle answers one request. Panics and errors become answers.
func (g *Gateway) handle(ctx *fasthttp.RequestCtx) {
	began := time.Now()
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("request panicked", "method", string(ctx.Method()), "path", string(ctx.Path()), "panic", p, "stack", string(debug.Stack()))
			fail(ctx, fault("UnexpectedError", fasthttp.StatusInternalServerError, "The gateway failed while answering. Please report this with its logs."))
			ctx.SetConnectionClose() // the request may not have been read to its end
		}
	}()
	e := g.route(ctx)
	if e == nil {
		return
	}
	g.log.Info("request failed", "method", string(ctx.Method()), "path", string(ctx.Path()), "status", e.HTTPStatus(), "error", e.Message, "took", time.Since(began))
	fail(ctx, e)
}

// route finds what answers a request. A returned error is its answer.
func (g *Gateway) route(ctx *fasthttp.RequestCtx) *api.Error {
	path := string(ctx.Path())
	if rest, ok := strings.CutPrefix(path, "/v1/runtimes/"); ok {
		return g.routeRuntime(ctx, rest)
	}
	if digest, ok := strings.CutPrefix(path, "/v1/flows/"); ok {
		return on(ctx, "PUT", func() *api.Error { return g.putFlow(ctx, digest) })
	}
	switch path {
	case "/health":
		return on(ctx, "GET", func() *api.Error { return g.health(ctx) })
	case "/ready":
		return on(ctx, "GET", func() *api.Error { return g.ready(ctx) })
	case "/version":
		return on(ctx, "GET", func() *api.Error { return g.version(ctx) })
	case "/v1/flows":
		return on(ctx, "POST", func() *api.Error { return g.putFlow(ctx, "") })
	case "/v1/runtimes":
		return on(ctx, "GET", func() *api.Error { return g.listRuntimes(ctx) })
	}
	return notFound(ctx)
}

// routeRuntime routes what follows /v1/runtimes/.
func (g *Gateway) routeRuntime(ctx *fasthttp.RequestCtx, rest string) *api.Error {
	name, action, _ := strings.Cut(rest, "/")
	p := g.pools[name]
	if p == nil {
		return g.unknownRuntime(name)
	}
	switch action {
	case "runs":
		return on(ctx, "POST", func() *api.Error { return g.submit(ctx, p, routeRuns) })
	case "validate":
		return on(ctx, "POST", func() *api.Error { return g.submit(ctx, p, routeValidate) })
	case "score":
		return on(ctx, "POST, OPTIONS", func() *api.Error { return g.submit(ctx, p, routeScore) })
	case "feedback":
		return on(ctx, "POST, OPTIONS", func() *api.Error { return g.submit(ctx, p, routeFeedback) })
	case "swagger.json":
		return on(ctx, "GET", func() *api.Error { return g.submit(ctx, p, routeSwagger) })
	case "":
		return on(ctx, "GET", func() *api.Error { return g.showRuntime(ctx, p) })
	}
	return notFound(ctx)
}

// on calls an endpoint if the request has one of its methods. HEAD is GET without its body, which fasthttp leaves out.
func on(ctx *fasthttp.RequestCtx, methods string, endpoint func() *api.Error) *api.Error {
	method := string(ctx.Method())
	for allowed := range strings.SplitSeq(methods, ", ") {
		if method == allowed || method == "HEAD" && allowed == "GET" {
			return endpoint()
		}
	}
	return fault("MethodNotAllowed", fasthttp.StatusMethodNotAllowed, "%s %s is not supported. Please use %s.", method, ctx.Path(), methods)
}

func notFound(ctx *fasthttp.RequestCtx) *api.Error {
	return fault("NotFound", fasthttp.StatusNotFound, "%s %s is not supported by this gateway. Please check the path.", ctx.Method(), ctx.Path())
}

func (g *Gateway) unknownRuntime(name string) *api.Error {
	mend := "GET /v1/runtimes lists those that there are."
	if near := g.config.Catalog.Near(name); len(near) > 0 {
		mend = "Did you mean " + strings.Join(near, " or ") + "?"
	}
	return fault("RuntimeNotFound", fasthttp.StatusNotFound, "There is no runtime %q here. %s", name, mend)
}
