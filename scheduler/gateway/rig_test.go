package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/scheduler/catalog"
)

// runtime is an instance as the gateway sees one: it keeps the runtime API's contract and counts what comes.
type runtime struct {
	*httptest.Server
	run http.HandlerFunc // what a submission does once it has begun; default: the submission comes back

	mu      sync.Mutex
	flows   map[string]bool
	needs   bool // flows must be handed in
	puts    int
	begun   int
	last    *http.Request
	refusal *api.Error // for submissions, before they begin
}

func newRuntime(t *testing.T) *runtime {
	t.Helper()
	r := &runtime{flows: map[string]bool{}}
	r.run = func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/flows/{digest}", r.put)
	mux.HandleFunc("POST /v1/runs", r.submit)
	mux.HandleFunc("POST /v1/validate", r.submit)
	for _, path := range []string{"/score", "/feedback", "/swagger.json"} {
		mux.HandleFunc(path, r.score)
	}
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

func refuse(w http.ResponseWriter, e *api.Error) {
	if e.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.HTTPStatus())
	_ = json.NewEncoder(w).Encode(api.ErrorBody{Error: e})
}

func (r *runtime) put(w http.ResponseWriter, q *http.Request) {
	dir, err := os.MkdirTemp("", "flow-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	digest := q.PathValue("digest")
	if err := bundle.Unpack(q.Context(), q.Body, filepath.Join(dir, "flow"), digest, bundle.DefaultLimits); err != nil {
		refuse(w, fault("InvalidBundle", http.StatusBadRequest, "%v", err))
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.puts++
	r.flows[digest] = true
	w.WriteHeader(http.StatusCreated)
}

func (r *runtime) submit(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	var request api.RunRequest
	_ = json.Unmarshal(body, &request)
	r.mu.Lock()
	r.last = q
	refusal := r.refusal
	if refusal == nil && r.needs && !r.flows[request.Flow] {
		refusal = fault("FlowNotFound", http.StatusFailedDependency, "the flow %s is not here", request.Flow)
	}
	if refusal == nil {
		r.begun++
	}
	r.mu.Unlock()
	if refusal != nil {
		refuse(w, refusal)
		return
	}
	q.Body = io.NopCloser(bytes.NewReader(body))
	r.run(w, q)
}

func (r *runtime) score(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.last = q
	r.mu.Unlock()
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if q.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	r.run(w, q)
}

func (r *runtime) counts() (begun, puts int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.begun, r.puts
}

func (r *runtime) request() *http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// front is a gateway that serves.
type front struct {
	*Gateway
	url  string
	stop func() error // drains; once
}

// serve starts a gateway before instances of a runtime called shared.
func serve(t *testing.T, config Config, addresses ...string) *front {
	t.Helper()
	var instances []catalog.Instance
	for _, address := range addresses {
		instances = append(instances, catalog.Instance{Address: address})
	}
	return serveInstances(t, config, instances)
}

func serveInstances(t *testing.T, config Config, instances []catalog.Instance) *front {
	t.Helper()
	table, err := catalog.NewStatic([]catalog.Runtime{{Name: "shared", Instances: instances}})
	must.NoError(t, err)
	config.Catalog = table
	if config.Bundles == "" {
		config.Bundles = t.TempDir()
	}
	config.Version = "1.2.3"
	listener, err := Listen(t.Context(), "127.0.0.1:0")
	must.NoError(t, err)
	g, err := New(config)
	must.NoError(t, err)
	ctx, end := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, listener) }()
	stop := sync.OnceValue(func() error { end(); return <-served })
	t.Cleanup(func() { must.NoError(t, stop()) })
	return &front{Gateway: g, url: "http://" + listener.Addr().String(), stop: stop}
}

// call makes a request and returns the answer with its body read.
func (f *front) call(t *testing.T, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
	must.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	must.NoError(t, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	must.NoError(t, err)
	return response, string(data)
}

func (f *front) submit(t *testing.T, body string) (*http.Response, string) {
	t.Helper()
	return f.call(t, "POST", "/v1/runtimes/shared/runs", body)
}

// failure reads an error answer, which must have the one shape.
func failure(t *testing.T, response *http.Response, body string) *api.Error {
	t.Helper()
	var e api.ErrorBody
	must.NoError(t, json.Unmarshal([]byte(body), &e), must.Sprint(body))
	must.NotNil(t, e.Error, must.Sprint(body))
	must.Eq(t, "application/json", response.Header.Get("Content-Type"))
	return e.Error
}

// deadAddress is one where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
	must.NoError(t, err)
	must.NoError(t, l.Close())
	return l.Addr().String()
}

// within fails the test when nothing comes of a channel.
func within[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("waited for %s in vain", what)
		panic("unreachable")
	}
}

// packed is a flow's bundle and its name.
func packed(t *testing.T, content string) (string, []byte) {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte(content), 0o600))
	var out bytes.Buffer
	name, _, err := bundle.Pack(t.Context(), dir, &out)
	must.NoError(t, err)
	return name, out.Bytes()
}
