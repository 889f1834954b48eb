package gateway

import (
	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

func (g *Gateway) health(ctx *fasthttp.RequestCtx) *api.Error {
	answer(ctx, fasthttp.StatusOK, api.Version{Status: "Healthy", Version: g.config.Version})
	return nil
}

func (g *Gateway) ready(ctx *fasthttp.RequestCtx) *api.Error {
	if g.draining.Load() {
		return stopping()
	}
	answer(ctx, fasthttp.StatusOK, map[string]string{"status": "Ready"})
	return nil
}

func (g *Gateway) version(ctx *fasthttp.RequestCtx) *api.Error {
	answer(ctx, fasthttp.StatusOK, api.Version{Status: "Healthy", Version: g.config.Version})
	return nil
}

func (g *Gateway) listRuntimes(ctx *fasthttp.RequestCtx) *api.Error {
	list := []api.Runtime{}
	for _, runtime := range g.config.Catalog.Runtimes() {
		list = append(list, g.pools[runtime.Name].describe())
	}
	answer(ctx, fasthttp.StatusOK, list)
	return nil
}

func (g *Gateway) showRuntime(ctx *fasthttp.RequestCtx, p *pool) *api.Error {
	answer(ctx, fasthttp.StatusOK, p.describe())
	return nil
}
