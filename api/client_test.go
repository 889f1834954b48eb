package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestClient_hands_the_bundle_in_once_where_it_is_missing(t *testing.T) {
	t.Parallel()
	var calls []string
	have := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		test.NoError(t, err)
		calls = append(calls, r.Method+" "+r.URL.Path)
		test.Eq(t, "Bearer secret", r.Header.Get("Authorization"))
		switch {
		case r.Method == http.MethodPut:
			test.Eq(t, "packed", string(body))
			have = true
		case !have:
			w.WriteHeader(http.StatusFailedDependency)
			test.NoError(t, json.NewEncoder(w).Encode(ErrorBody{Error: NewError([]string{UserError, "FlowNotFound"}, "Runtime", "flow is not here")}))
		default:
			_, err := io.WriteString(w, `{"run_id":"r1","status":"Completed","output":{"x":NaN,"y":"NaN \" Infinity"},"flow_runs":[],"node_runs":[]}`)
			test.NoError(t, err)
		}
	}))
	defer server.Close()
	client, err := NewClient(server.URL, "secret")
	must.NoError(t, err)
	result, err := client.RunBundle(t.Context(), "team", RunRequest{Flow: "sha256:00"}, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("packed")), nil
	})
	must.NoError(t, err)
	test.Eq(t, "r1", result.RunID)
	test.Eq(t, `{"x":"NaN","y":"NaN \" Infinity"}`, string(result.Output))
	test.Eq(t, []string{"POST /v1/runtimes/team/runs", "PUT /v1/flows/sha256:00", "POST /v1/runtimes/team/runs"}, calls)
}

func TestClient_gives_up_when_the_bundle_stays_missing(t *testing.T) {
	t.Parallel()
	runs := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			runs++
			http.Error(w, `{"error":{"code":"UserError","message":"still not here"}}`, http.StatusFailedDependency)
		}
	}))
	defer server.Close()
	client, err := NewClient(server.URL, "")
	must.NoError(t, err)
	_, err = client.RunBundle(t.Context(), "", RunRequest{Flow: "sha256:00"}, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("packed")), nil
	})
	must.EqError(t, err, "still not here")
	test.Eq(t, 2, runs)
}

func TestClient_says_what_went_wrong(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"code":"SystemError","message":"starting","innerError":{"code":"NotReady"}}}`)
			return
		}
		http.Error(w, "who are you", http.StatusTeapot)
	}))
	defer server.Close()
	client, err := NewClient(server.URL, "")
	must.NoError(t, err)

	err = client.Ready(t.Context())
	e := AsError(err)
	test.EqError(t, err, "starting")
	test.Eq(t, http.StatusServiceUnavailable, e.HTTPStatus())
	test.Eq(t, []string{"SystemError", "NotReady"}, e.Chain())

	_, err = client.Version(t.Context())
	test.ErrorContains(t, err, "418")
	test.ErrorContains(t, err, "who are you")

	server.Close()
	test.ErrorContains(t, client.Ready(t.Context()), "reach "+server.URL)
}

func TestClient_speaks_over_a_unix_socket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "npf-") //nolint:usetesting // a socket's path has at most 107 bytes
	must.NoError(t, err)
	defer func() { must.NoError(t, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "s")
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "unix", path)
	must.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version":"1.2.3"}`)
	})}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	client, err := NewClient("unix:"+path, "")
	must.NoError(t, err)
	version, err := client.Version(t.Context())
	must.NoError(t, err)
	test.Eq(t, "1.2.3", version.Version)
}

func TestNewClient_refuses_addresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "ftp://x", "http://", "::"} {
		_, err := NewClient(address, "")
		test.ErrorContains(t, err, "must be", test.Sprint(address))
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	e := NewError([]string{UserError, "ValidationError", "InputNotFound"}, "Executor", "input %q is missing", "x").At("flow.dag.yaml", 3, 5)
	test.Eq(t, "InputNotFound", e.Class())
	test.Eq(t, http.StatusBadRequest, e.HTTPStatus())
	test.Eq(t, http.StatusInternalServerError, NewError(nil, "", "x").HTTPStatus())
	test.Eq(t, `flow.dag.yaml:3:5: input "x" is missing`, e.Error())
	test.Eq(t, e, AsError(e))
	test.Eq(t, "UnexpectedError", AsError(os.ErrNotExist).Class())
	test.Nil(t, AsError(nil))
}

func TestRunRequest_goesOverTheWireAsItIs(t *testing.T) {
	t.Parallel()
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	tests := []struct {
		name    string
		request RunRequest
		want    string
		says    string
	}{
		{name: "one line", request: RunRequest{Flow: "f", Inputs: raw(`{"b": NaN, "a": 1.0}`)}, want: `{"flow":"f","inputs":{"b": NaN, "a": 1.0}}`},
		{name: "many lines", request: RunRequest{Flow: "f", Lines: []json.RawMessage{raw(`{}`), raw(`{"x":-Infinity}`)}}, want: `{"flow":"f","lines":[{},{"x":-Infinity}]}`},
		{name: "all else", request: RunRequest{Flow: "f", RunID: "r", EnvironmentVariables: map[string]string{"A": "b"}}, want: `{"flow":"f","run_id":"r","environment_variables":{"A":"b"}}`},
		{name: "broken inputs", request: RunRequest{Inputs: raw(`{"a"}`)}, says: "inputs are not valid JSON"},
		{name: "a broken line", request: RunRequest{Lines: []json.RawMessage{raw(`{}`), raw(`{`)}}, says: "line 1 is not valid JSON"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.request.encode()
			if tc.says != "" {
				must.ErrorContains(t, err, tc.says)
				return
			}
			must.NoError(t, err)
			test.Eq(t, tc.want, string(got))
		})
	}
}
