package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswer bounds what the client reads of one answer.
const maxAnswer = 1 << 30

// Client speaks to a runtime or to a gateway. It is safe for many goroutines.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// NewClient returns a client of the server at address: "http://host:port", "host:port" or "unix:/path". Token, when not empty, is sent
// as a bearer token.
func NewClient(address, token string) (*Client, error) {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}
	transport.DialContext = dialer.DialContext
	base := strings.TrimSuffix(address, "/")
	switch {
	case strings.HasPrefix(address, "unix:"):
		path := strings.TrimPrefix(strings.TrimPrefix(address, "unix:"), "//")
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		base = "http://unix"
	case !strings.Contains(address, "://"):
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("address %q: must be http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:/PATH", address)
	}
	return &Client{base: base, token: token, http: &http.Client{Transport: transport}}, nil
}

// Version is what a server says of itself.
type Version struct {
	Status  string `json:"status,omitempty"`
	Version string `json:"version"`
	// Environment is the name of the environment that a runtime was made from, EnvironmentDigest what it resolved to.
	Environment       string `json:"environment,omitempty"`
	EnvironmentDigest string `json:"environment_digest,omitempty"`
}

// Runtime is what a gateway says of a runtime.
type Runtime struct {
	Name      string     `json:"name"`
	Type      string     `json:"type"`
	Owner     string     `json:"owner,omitempty"`
	Instances []Instance `json:"instances"`
}

// Instance is one allocation of a runtime as a gateway sees it.
type Instance struct {
	ID          string `json:"id"`
	Address     string `json:"address"`
	Concurrency int    `json:"concurrency"`
	InFlight    int    `json:"in_flight"`
}

// Ready returns nil when the server takes work.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "/ready", nil, "", nil)
}

// Version asks the server for its version.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var v Version
	return v, c.do(ctx, http.MethodGet, "/version", nil, "", &v)
}

// Runtimes lists the runtimes that a gateway knows.
func (c *Client) Runtimes(ctx context.Context) ([]Runtime, error) {
	var out []Runtime
	return out, c.do(ctx, http.MethodGet, "/v1/runtimes", nil, "", &out)
}

// PutFlow hands in the bundle called digest.
func (c *Client) PutFlow(ctx context.Context, digest string, bundle io.Reader) error {
	return c.do(ctx, http.MethodPut, "/v1/flows/"+url.PathEscape(digest), bundle, "application/vnd.nomad-promptflow.flow.v1.tar+zstd", nil)
}

// Run submits to a runtime directly (runtime empty) or to the named runtime of a gateway. The result of a flow that failed is a
// result, not an error.
func (c *Client) Run(ctx context.Context, runtime string, request RunRequest) (*RunResult, error) {
	body, err := request.encode()
	if err != nil {
		return nil, fmt.Errorf("encode submission: %w", err)
	}
	var result RunResult
	if err := c.do(ctx, http.MethodPost, runsPath(runtime), bytes.NewReader(body), "application/json", &result); err != nil {
		return nil, err
	}
	return &result, nil
}

func runsPath(runtime string) string {
	if runtime == "" {
		return "/v1/runs"
	}
	return "/v1/runtimes/" + url.PathEscape(runtime) + "/runs"
}

// RunBundle submits, and where the server does not have the flow's bundle yet, hands it in and submits once more. Open returns the
// packed bundle from its start.
func (c *Client) RunBundle(ctx context.Context, runtime string, request RunRequest, open func() (io.ReadCloser, error)) (*RunResult, error) {
	return c.withBundle(ctx, request, open, func() (*RunResult, error) { return c.Run(ctx, runtime, request) })
}

// withBundle submits, and once more when the bundle was missing and has been handed in.
func (c *Client) withBundle(ctx context.Context, request RunRequest, open func() (io.ReadCloser, error), submit func() (*RunResult, error)) (*RunResult, error) {
	result, err := submit()
	var e *Error
	if err == nil || !errors.As(err, &e) || e.HTTPStatus() != http.StatusFailedDependency {
		return result, err
	}
	bundle, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = bundle.Close() }()
	if err := c.PutFlow(ctx, request.Flow, bundle); err != nil {
		return nil, err
	}
	return submit()
}

// do makes one call. An answer outside 2xx is an *Error.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, contentType string, into any) error {
	resp, err := c.send(ctx, method, path, body, contentType, "")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", path, err)
	}
	if err := json.Unmarshal(quoteNonFinite(data), into); err != nil {
		return fmt.Errorf("decode answer of %s: %w", path, err)
	}
	return nil
}

// send makes one call and returns its answer, whose body is to be closed. An answer outside 2xx is an *Error.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader, contentType, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		// The URL is in the error already; the method says nothing to a person.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("reach %s: %w", c.base, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer func() { _ = resp.Body.Close() }()
		return nil, ResponseError(resp)
	}
	return resp, nil
}

// ResponseError is the server's own error in an answer outside 2xx, or one that shows what an unexpected server said. It reads the
// body and does not close it.
func ResponseError(resp *http.Response) *Error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return NewError([]string{SystemError, "UnexpectedAnswer"}, "Client", "read error answer of %s: %s", resp.Request.URL, err).WithStatus(resp.StatusCode)
	}
	var body ErrorBody
	if json.Unmarshal(data, &body) == nil && body.Error != nil {
		return body.Error.WithStatus(resp.StatusCode)
	}
	text := strings.TrimSpace(string(data))
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return NewError([]string{SystemError, "UnexpectedAnswer"}, "Client", "%s answered %s: %s", resp.Request.URL, resp.Status, text).WithStatus(resp.StatusCode)
}
