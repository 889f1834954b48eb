package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// target names this server in errors.
const target = "Gateway"

// Why a request is cancelled.
var (
	errGone     = errors.New("the client went away")
	errStopping = errors.New("the gateway is stopping")
)

// fault is an error of a request; class is below UserError for a 4xx status and below SystemError otherwise.
func fault(class string, status int, format string, args ...any) *api.Error {
	root := api.UserError
	if status >= fasthttp.StatusInternalServerError {
		root = api.SystemError
	}
	return api.NewError([]string{root, class}, target, format, args...).WithStatus(status)
}

func stopping() *api.Error {
	e := fault("Stopping", fasthttp.StatusServiceUnavailable, "This gateway is stopping. Please send the request to another one, or again in a moment.")
	e.RetryAfterSeconds = 1
	return e
}

// fail answers with an error.
func fail(ctx *fasthttp.RequestCtx, e *api.Error) {
	last := ctx.Response.ConnectionClose()
	ctx.Response.Reset()
	if last {
		ctx.SetConnectionClose()
	}
	if e.RetryAfterSeconds > 0 {
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(e.RetryAfterSeconds))
	}
	answer(ctx, e.HTTPStatus(), api.ErrorBody{Error: e})
}

// answer answers with a JSON document.
func answer(ctx *fasthttp.RequestCtx, status int, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		status, body = fasthttp.StatusInternalServerError, []byte(`{"error":{"code":"SystemError","message":"The answer cannot be written as JSON. Please report this."}}`)
	}
	ctx.Response.SetStatusCode(status)
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetBodyRaw(body)
}

// refuse answers requests that are no HTTP, or too large or too slow in coming.
func (g *Gateway) refuse(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &small):
		fail(ctx, fault("RequestTooLarge", fasthttp.StatusRequestHeaderFieldsTooLarge, "The request's header has more than %d bytes. Please send less.", maxHeader))
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, fasthttp.ErrTimeout):
		fail(ctx, fault("RequestTimeout", fasthttp.StatusRequestTimeout, "The request did not come in time. Please send it again."))
	case errors.Is(err, io.ErrUnexpectedEOF):
		fail(ctx, fault("BadRequest", fasthttp.StatusBadRequest, "The request broke off before its end. Please send it again."))
	default:
		fail(ctx, fault("BadRequest", fasthttp.StatusBadRequest, "The request is not valid HTTP/1.1. Please check the client that sent it."))
	}
}
