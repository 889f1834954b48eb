package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The bounds of one request.
const (
	attemptTimeout = 10 * time.Minute // as OpenAI's client
	connectTimeout = 5 * time.Second  // as OpenAI's client
	maxAnswer      = 64 << 20         // bytes
)

// Client sends requests to models. One client serves all nodes, so that connections are kept alive and shared. It is built on
// net/http and not on OpenAI's Go module, because bodies (null and empty fields included), retries and error texts
// have to be those of promptflow-tools, and because endpoints that are only similar to OpenAI's must work.
type Client struct {
	// HTTP sends one request; nil means a shared pool of kept connections.
	HTTP *http.Client
	// Wait pauses before a retry, no longer than ctx; nil means a timer.
	Wait func(ctx context.Context, d time.Duration) error
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// DefaultClient is the client of nodes that name none.
var DefaultClient = &Client{}

var pool = &http.Client{
	Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          1000,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	},
	CheckRedirect: sameHost,
}

// sameHost follows redirects within one host only: the request carries the connection's key.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if req.URL.Host != via[0].URL.Host || via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect to another host, %s, which must not get the connection's key", req.URL.Host)
	}
	return nil
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) wait(ctx context.Context, d time.Duration) error {
	if c.Wait != nil {
		return c.Wait(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answer is what an endpoint said with a status below 400.
type answer struct {
	value any
}

// send makes one attempt. Errors are *apiFailure, or ctx's cause when ctx ended, or an *api.Error.
func (c *Client) send(ctx context.Context, e *endpoint, target string, body []byte) (*answer, error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := c.post(attempt, e, target, body)
	if err != nil {
		return nil, c.transportFailure(ctx, e, target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.transportFailure(ctx, e, target, err)
	}
	if resp.StatusCode >= 400 {
		return nil, statusFailure(resp, data)
	}
	return readAnswer(e, target, resp, data)
}

// post sends a request and returns when the header of its answer is there.
func (c *Client) post(ctx context.Context, e *endpoint, target string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return nil, llmError("InvalidURL", redactURL(target))
	}
	req.Header = e.header.Clone()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	// An idle connection that the endpoint has just closed is no failure: with this key, which is empty and not sent,
	// net/http tries another one.
	req.Header["Idempotency-Key"] = []string{}
	client := c.HTTP
	if client == nil {
		client = pool
	}
	return client.Do(req)
}

func readAnswer(e *endpoint, target string, resp *http.Response, data []byte) (*answer, error) {
	where := "the endpoint " + redactURL(target) + " of connection '" + e.connection + "' "
	if len(data) > maxAnswer {
		return nil, llmError("ValueError", fmt.Sprintf("%sanswered with more than %d bytes", where, maxAnswer))
	}
	v, err := value.Decode(data)
	if err != nil {
		return nil, llmError("JSONDecodeError", fmt.Sprintf("%v: %sanswered status %d with no JSON but %q: check the connection's %s",
			err, where, resp.StatusCode, resp.Header.Get("Content-Type"), e.field()))
	}
	return &answer{value: v}, nil
}

// transportFailure says why there was no answer, in the words of OpenAI's client and then with what a reader needs.
func (c *Client) transportFailure(ctx context.Context, e *endpoint, target string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *api.Error
	if errors.As(err, &known) {
		return known
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() && !isDial(err) {
		return &apiFailure{class: "APITimeoutError", text: "Request timed out.", retriable: true}
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text has the whole URL
	}
	return &apiFailure{
		class:     "APIConnectionError",
		text:      "Connection error.",
		retriable: isAborted(err),
		mend: fmt.Sprintf("The endpoint %s of connection '%s' cannot be reached: %v. Check that it is up and can be reached from this runtime, or set the connection's %s%s.",
			redactURL(target), e.connection, err, e.field(), e.variable()),
	}
}

// variable names the environment variable that sets the endpoint of a connection made from the environment.
func (e *endpoint) variable() string {
	switch e.connection {
	case "open_ai_connection":
		return " (OPENAI_BASE_URL)"
	case "azure_open_ai_connection":
		return " (AZURE_OPENAI_ENDPOINT)"
	default:
		return ""
	}
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// isAborted reports what promptflow-tools retries: an aborted connection, or one closed without an answer.
func isAborted(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNABORTED)
}
