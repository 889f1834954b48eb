package server

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

const pythonFlow = `inputs: {n: {type: int}}
outputs: {double: {type: int, reference: "${p.output}"}}
nodes:
- {name: p, type: python, source: {type: code, path: p.py}, inputs: {n: "${inputs.n}"}}
`

const pythonTool = `from promptflow.core import tool


@tool
def double(n: int):
    return 2 * n
`

// TestRun_withPython is the server as a container runs it: it becomes ready, answers, and stops without leaving anything.
func TestRun_withPython(t *testing.T) {
	harness.Integration(t)
	dir := t.TempDir()
	flow := filepath.Join(dir, "flow")
	must.NoError(t, os.Mkdir(flow, 0o700))
	must.NoError(t, os.WriteFile(filepath.Join(flow, "flow.dag.yaml"), []byte(pythonFlow), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(flow, "p.py"), []byte(pythonTool), 0o600))
	socket := filepath.Join(dir, "s.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Listen: "unix:" + socket, Flow: flow, Data: filepath.Join(dir, "data"), Python: harness.Python(t), Workers: 1})
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	get := func(path string) int {
		resp, err := client.Get("http://runtime" + path)
		if err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return get("/ready") == http.StatusOK }), wait.Timeout(time.Minute), wait.Gap(20*time.Millisecond)))
	resp, err := client.Post("http://runtime/score", "application/json", strings.NewReader(`{"n": 21}`))
	must.NoError(t, err)
	body := make([]byte, 100)
	n, _ := resp.Body.Read(body)
	_ = resp.Body.Close()
	test.Eq(t, `{"double":42}`, string(body[:n]))
	client.CloseIdleConnections()
	cancel()
	select {
	case err := <-ended:
		test.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("the server did not stop")
	}
	test.Eq(t, 0, get("/health"))
	left, err := os.ReadDir(filepath.Join(dir, "data", "workers"))
	must.NoError(t, err)
	test.SliceEmpty(t, left)
}

func TestRun_startErrorsSayWhatToDo(t *testing.T) {
	harness.Integration(t)
	dir := t.TempDir()
	base := Config{Listen: "127.0.0.1:0", Data: filepath.Join(dir, "data"), Python: harness.Python(t)}
	noPython := base
	noPython.Python = filepath.Join(dir, "nopython")
	test.ErrorContains(t, Run(t.Context(), noPython), "start python workers")
	noFlow := base
	noFlow.Flow = dir
	test.ErrorContains(t, Run(t.Context(), noFlow), "Have found neither flow.dag.yaml nor flow.flex.yaml")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must.NoError(t, err)
	defer taken.Close()
	busy := base
	busy.Listen = taken.Addr().String()
	test.ErrorContains(t, Run(t.Context(), busy), "choose another address with PROMPTFLOW_LISTEN")
}
