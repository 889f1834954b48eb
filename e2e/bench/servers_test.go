package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// server is one that serves a flow at /score.
type server struct {
	*process
	name string
	url  string
}

// services are what flows call: one that waits a second, and a model that answers at once.
type services struct {
	waiting string // host:port
	model   string // base URL
}

func startServices(b *testing.B) services {
	b.Helper()
	waiting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"waited": 1.0}`)
	}))
	b.Cleanup(waiting.Close)
	answer := []byte(`{"id": "chatcmpl-0", "object": "chat.completion", "created": 1700000000, "model": "bench", "choices": [{"index": 0,
		"message": {"role": "assistant", "content": "Yes, within thirty days."}, "finish_reason": "stop"}],
		"usage": {"prompt_tokens": 60, "completion_tokens": 6, "total_tokens": 66}}`)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(model.Close)
	return services{waiting.Listener.Addr().String(), model.URL + "/v1"}
}

func flowDir(b *testing.B, name string) string {
	b.Helper()
	return filepath.Join(harness.Root(b), "e2e", "bench", "flows", name)
}

// environment is what both sides' processes get.
func environment(s services, more ...string) []string {
	env := append(os.Environ(), "BENCH_SERVICE="+s.waiting, "NO_PROXY=127.0.0.1,localhost", "PYTHONDONTWRITEBYTECODE=")
	return append(env, more...)
}

// startOurs serves a flow with this project's runtime; no flow at all when it is empty.
func startOurs(b *testing.B, s services, flow string) *server {
	b.Helper()
	dir := b.TempDir()
	connections := filepath.Join(dir, "connections.json")
	content, err := json.Marshal(map[string]any{"open_ai_connection": map[string]any{
		"type": "OpenAIConnection", "module": "promptflow.connections", "value": map[string]string{"api_key": "none", "base_url": s.model},
	}})
	must.NoError(b, err)
	must.NoError(b, os.WriteFile(connections, content, 0o600))
	address := freeAddress(b)
	args := []string{"runtime", "serve", "-listen", address, "-log-level", "warn"}
	if flow != "" {
		args = append(args, "-flow", flowDir(b, flow))
	}
	p := start(b, dir, environment(s, "PROMPTFLOW_CONNECTIONS="+connections, "PROMPTFLOW_PYTHON="+harness.Python(b), "PROMPTFLOW_DATA="+dir,
		"PROMPTFLOW_MAX_CONCURRENCY=20000"), harness.Binary(b), args...)
	o := &server{p, "nomad-promptflow", "http://" + address}
	p.waitFor(b, time.Minute, func() error { return o.get("/ready") })
	return o
}

// engine is a way to serve a flow with prompt flow.
type engine struct {
	name string
	args func(address string) []string // of the program in the virtual environment
	env  []string
}

// engines are the servers of `pf flow serve`, and what the image runs that `pf flow build` makes, with a worker per processor.
var engines = []engine{
	{name: "pf flow serve, flask", args: served("flask")},
	{name: "pf flow serve, fastapi", args: served("fastapi")},
	{name: "gunicorn, fastapi", args: func(address string) []string {
		return []string{"gunicorn", "-w", fmt.Sprint(runtime.NumCPU()), "-b", address, "--timeout", "300", "-k", "uvicorn.workers.UvicornWorker",
			`promptflow.core._serving.app:create_app(engine="fastapi")`}
	}},
}

func served(engine string) func(string) []string {
	return func(address string) []string {
		host, port, _ := net.SplitHostPort(address)
		return []string{"pf", "flow", "serve", "--source", ".", "--host", host, "--port", port, "--engine", engine, "--skip-open-browser"}
	}
}

// benchPython returns the folder of programs of the virtual environment that `make bench-runtime` makes.
func benchPython(b *testing.B) string {
	b.Helper()
	dir := filepath.Join(harness.Root(b), ".build", "bench-venv", "bin")
	if _, err := os.Stat(filepath.Join(dir, "pf")); err != nil {
		b.Fatalf("%v: run make bench-runtime", err)
	}
	return dir
}

// theirHome makes prompt flow's home folder with the connection, in its own store.
func theirHome(b *testing.B, s services) []string {
	b.Helper()
	home := b.TempDir()
	env := environment(s, "HOME="+home, "PF_HOME_DIRECTORY="+home, "PYTHON_KEYRING_BACKEND=keyrings.alt.file.PlaintextKeyring")
	file := filepath.Join(home, "connection.yaml")
	must.NoError(b, os.WriteFile(file, []byte("name: open_ai_connection\ntype: open_ai\napi_key: none\nbase_url: "+s.model+"\n"), 0o600))
	cmd := exec.CommandContext(b.Context(), filepath.Join(benchPython(b), "pf"), "connection", "create", "--file", file)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	must.NoError(b, err, must.Sprint(string(out)))
	return env
}

// startTheirs serves a flow with prompt flow.
func startTheirs(b *testing.B, e engine, env []string, flow string) *server {
	b.Helper()
	dir := filepath.Join(b.TempDir(), flow) // it writes beside the flow
	must.NoError(b, os.CopyFS(dir, os.DirFS(flowDir(b, flow))))
	address := freeAddress(b)
	args := e.args(address)
	env = append(env, "PROMPTFLOW_PROJECT_PATH="+dir)
	p := start(b, dir, append(env, e.env...), filepath.Join(benchPython(b), args[0]), args[1:]...)
	t := &server{p, e.name, "http://" + address}
	p.waitFor(b, 2*time.Minute, func() error { return t.get("/health") })
	return t
}

func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	must.NoError(b, err)
	defer l.Close()
	return l.Addr().String()
}

func (s *server) get(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", path, answer.Status)
	}
	return nil
}

// score makes requests with a body to /score.
func (s *server) score(body string) func(context.Context) (*http.Request, error) {
	return func(ctx context.Context) (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/score", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Content-Type", "application/json")
		return request, nil
	}
}

// once sends one request and checks its answer.
func (s *server) once(b *testing.B, body, want string) {
	b.Helper()
	request, err := s.score(body)(b.Context())
	must.NoError(b, err)
	answer, err := http.DefaultClient.Do(request)
	must.NoError(b, err)
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	must.NoError(b, err)
	must.Eq(b, http.StatusOK, answer.StatusCode, must.Sprintf("%s: %s\n%s", s.name, content, s.output()))
	must.StrContains(b, string(content), want)
}
