package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// fakeWorkers has one tool for every node, which call runs.
type fakeWorkers struct {
	call func(ctx context.Context, c worker.Call) (any, *api.Error)

	mu      sync.Mutex
	opened  int
	leased  int
	most    int // sessions at once
	current int
	nodes   []string
}

func (f *fakeWorkers) Open(_ context.Context, spec worker.FlowSpec) (FlowWorkers, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	for _, n := range spec.Nodes {
		name, _ := n.Get("name")
		f.nodes = append(f.nodes, name.(string))
	}
	return f, nil
}

func (f *fakeWorkers) Tools() []*worker.Tool {
	var tools []*worker.Tool
	for _, n := range f.nodes {
		tools = append(tools, &worker.Tool{Node: n})
	}
	return tools
}

func (f *fakeWorkers) Script() *worker.Script { return nil }

func (f *fakeWorkers) Lease(context.Context) (Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leased++
	f.current++
	f.most = max(f.most, f.current)
	return &fakeSession{f}, nil
}

func (f *fakeWorkers) Close() error { return nil }

type fakeSession struct{ f *fakeWorkers }

func (s *fakeSession) Call(ctx context.Context, c worker.Call) (*worker.Result, error) {
	v, err := s.f.call(ctx, c)
	return &worker.Result{Value: v, Error: err, Inputs: json.RawMessage("{}"), Started: time.Now()}, nil
}

func (s *fakeSession) Line(context.Context, worker.Line) (*worker.LineResult, error) {
	return nil, errors.New("no script")
}

func (s *fakeSession) Aggregate(context.Context, string, []*worker.LineResult) (json.RawMessage, error) {
	return nil, errors.New("no script")
}

func (s *fakeSession) Property(context.Context, *value.Ref, string, string) (any, error) {
	return nil, errors.New("no property")
}
func (s *fakeSession) Equal(context.Context, *value.Ref, any) (bool, error) { return false, nil }
func (s *fakeSession) Join(context.Context, *value.Ref) (string, error)     { return "joined", nil }
func (s *fakeSession) Stream(_ context.Context, _ *value.Ref, emit func(any) error) error {
	return emit("joined")
}
func (s *fakeSession) Render(context.Context, string, *value.Dict) (string, error) {
	return "", errors.New("no renderer")
}
func (s *fakeSession) RenderChatLists(context.Context, string, *value.Dict) (string, error) {
	return "", errors.New("no renderer")
}
func (s *fakeSession) Variables(context.Context, string) ([]worker.Variable, error) {
	return nil, errors.New("no parser")
}
func (s *fakeSession) Release() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.current--
}

func load(t *testing.T, f *fakeWorkers, yaml string, change func(*Config)) *Executor {
	t.Helper()
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte(yaml), 0o600))
	c := Config{Digest: "sha256:test", Dir: dir, Workers: f, Environment: Overwriting(nil)}
	if change != nil {
		change(&c)
	}
	x, err := Load(t.Context(), c)
	must.NoError(t, err)
	t.Cleanup(x.Close)
	return x
}

// wide is a flow of count nodes without references.
func wide(count int) string {
	var b strings.Builder
	b.WriteString("inputs: {a: {type: int}}\noutputs: {o: {type: int, reference: \"${n0.output}\"}}\nnodes:\n")
	for i := range count {
		fmt.Fprintf(&b, "- {name: n%d, type: python, source: {type: code, path: n.py}}\n", i)
	}
	return b.String()
}

func canceledBy(ctx context.Context) (any, *api.Error) {
	<-ctx.Done()
	return nil, canceled("Received cancel request")
}

func TestRun_sixteenNodesAtOnce(t *testing.T) {
	t.Parallel()
	gate, arrived := make(chan struct{}), make(chan struct{}, 40)
	f := &fakeWorkers{call: func(context.Context, worker.Call) (any, *api.Error) {
		arrived <- struct{}{}
		<-gate
		return int64(1), nil
	}}
	x := load(t, f, wide(40), nil)
	done := make(chan *api.RunResult, 1)
	go func() {
		result, _ := x.Run(context.Background(), &api.RunRequest{Inputs: json.RawMessage(`{"a":1}`)})
		done <- result
	}()
	for range nodeConcurrency {
		<-arrived
	}
	test.SliceEmpty(t, make([]struct{}, len(arrived)), test.Sprint("more nodes run than there are slots"))
	close(gate)
	result := <-done
	test.Eq(t, api.StatusCompleted, result.Status)
	test.SliceLen(t, 40, result.NodeRuns)
	test.Eq(t, 1, f.leased)
	test.Eq(t, 0, f.current)
}

func TestRun_clientGoneCancels(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeWorkers{call: func(call context.Context, c worker.Call) (any, *api.Error) {
		if c.Node == "n0" {
			cancel()
		}
		return canceledBy(call)
	}}
	x := load(t, f, wide(20), nil)
	result, err := x.Run(ctx, &api.RunRequest{Inputs: json.RawMessage(`{"a":1}`)})
	must.NoError(t, err)
	test.Eq(t, api.StatusCanceled, result.Status)
	test.Eq(t, "Tool execution is canceled because: Received cancel request.", result.Error.Message)
	for _, n := range result.NodeRuns {
		test.Eq(t, api.StatusCanceled, n.Status)
	}
	test.LessEq(t, 20, len(result.NodeRuns))
	batch, err := x.Run(ctx, &api.RunRequest{Lines: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}})
	must.NoError(t, err)
	test.Eq(t, api.StatusCanceled, batch.Status)
	test.Eq(t, 0, f.current)
}

func TestRun_lineTimeout(t *testing.T) {
	t.Parallel()
	f := &fakeWorkers{call: func(call context.Context, c worker.Call) (any, *api.Error) {
		if c.LineNumber == 1 {
			return canceledBy(call)
		}
		return int64(1), nil
	}}
	x := load(t, f, wide(1), func(c *Config) { c.LineTimeout = 50 * time.Millisecond })
	result, err := x.Run(t.Context(), &api.RunRequest{Lines: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}})
	must.NoError(t, err)
	test.Eq(t, api.StatusCompleted, result.Status)
	test.Eq(t, []string{api.StatusCompleted, api.StatusFailed}, []string{result.FlowRuns[0].Status, result.FlowRuns[1].Status})
	test.Eq(t, "Line 1 execution timeout for exceeding 0.05 seconds", result.FlowRuns[1].Error.Message)
	test.Eq(t, "LineExecutionTimeoutError", result.FlowRuns[1].Error.Class())
	must.SliceLen(t, 2, result.NodeRuns)
	test.Eq(t, api.StatusCanceled, result.NodeRuns[1].Status)
	test.Eq(t, "Tool execution is canceled because: Line execution timeout after 0.05 seconds.", result.NodeRuns[1].Error.Message)
}

func TestRun_firstFailureEndsTheLine(t *testing.T) {
	t.Parallel()
	f := &fakeWorkers{call: func(call context.Context, c worker.Call) (any, *api.Error) {
		if c.Node == "n1" {
			return nil, api.NewError([]string{"UserError", "ToolExecutionError"}, "Tool", "broken")
		}
		return canceledBy(call)
	}}
	x := load(t, f, wide(3), nil)
	result, err := x.Run(t.Context(), &api.RunRequest{Inputs: json.RawMessage(`{"a":1}`)})
	must.NoError(t, err)
	test.Eq(t, api.StatusFailed, result.Status)
	test.Eq(t, "broken", result.Error.Message)
	test.Eq(t, "null", string(result.Output))
}

func TestRun_boundsLinesAtOnce(t *testing.T) {
	t.Parallel()
	f := &fakeWorkers{call: func(context.Context, worker.Call) (any, *api.Error) { return int64(1), nil }}
	x := load(t, f, wide(1), func(c *Config) { c.Lines = 3 })
	var lines []json.RawMessage
	for i := range 50 {
		lines = append(lines, fmt.Appendf(nil, `{"a":%d}`, i))
	}
	result, err := x.Run(t.Context(), &api.RunRequest{RunID: "r", Lines: lines})
	must.NoError(t, err)
	test.LessEq(t, 3, f.most)
	must.SliceLen(t, 50, result.Outputs)
	test.Eq(t, `{"line_number":49,"o":1}`, string(result.Outputs[49]))
	test.Eq(t, "r_n0_49", result.NodeRuns[49].RunID)
}

const summing = `inputs: {a: {type: int}}
nodes:
- {name: n, type: python, source: {type: code, path: n.py}, inputs: {a: "${inputs.a}"}}
- {name: sum, type: python, source: {type: code, path: n.py}, inputs: {all: "${n.output}"}, aggregation: true}
`

func TestAggregation_objectsOfManyLinesPassAsJSON(t *testing.T) {
	t.Parallel()
	var seen any
	f := &fakeWorkers{call: func(_ context.Context, c worker.Call) (any, *api.Error) {
		if c.Node == "sum" {
			seen = c.Inputs[0].Value
			return nil, nil
		}
		return &value.Ref{ID: uint64(c.LineNumber), Type: "builtins.tuple", Record: json.RawMessage(`[1,2]`)}, nil
	}}
	x := load(t, f, summing, nil)
	_, err := x.Run(t.Context(), &api.RunRequest{Lines: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}})
	must.NoError(t, err)
	test.Eq(t, "[[1, 2], [1, 2]]", value.Repr(seen))
	_, err = x.Run(t.Context(), &api.RunRequest{Inputs: json.RawMessage(`{"a":1}`)})
	must.NoError(t, err)
	_, isRef := seen.([]any)[0].(*value.Ref)
	test.True(t, isRef, test.Sprint("one line's object stays what it is"))
	test.Eq(t, 0, f.current)
}

func TestAggregation_refusesObjectsThatCannotPass(t *testing.T) {
	t.Parallel()
	f := &fakeWorkers{call: func(context.Context, worker.Call) (any, *api.Error) { return &value.Ref{Type: "x.Y", Repr: "<Y>"}, nil }}
	x := load(t, f, summing, nil)
	result, err := x.Run(t.Context(), &api.RunRequest{Lines: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}})
	must.NoError(t, err)
	test.Eq(t, api.StatusFailed, result.Status)
	test.StrContains(t, result.Error.Message, "The output of node 'n' is of type x.Y")
	test.SliceLen(t, 2, result.Outputs)
}

func TestRun_refusesBadSubmissions(t *testing.T) {
	t.Parallel()
	x := load(t, &fakeWorkers{}, wide(1), nil)
	empty := load(t, &fakeWorkers{}, "nodes:\n- {name: n, type: python, source: {type: code, path: n.py}}\n", nil)
	line := []json.RawMessage{json.RawMessage(`{}`)}
	cases := []struct {
		x       *Executor
		request *api.RunRequest
		class   string
	}{
		{x, &api.RunRequest{Inputs: json.RawMessage(`[1]`)}, "InvalidRequest"},
		{x, &api.RunRequest{Inputs: json.RawMessage(`{`)}, "InvalidRequest"},
		{x, &api.RunRequest{Inputs: json.RawMessage(`{}`), Lines: line}, "InvalidRequest"},
		{x, &api.RunRequest{Lines: []json.RawMessage{}}, "EmptyInputsData"},
		{x, &api.RunRequest{Lines: []json.RawMessage{json.RawMessage(`3`)}}, "InvalidRequest"},
		{empty, &api.RunRequest{Lines: line}, "InputNotFound"},
	}
	for _, tc := range cases {
		_, err := tc.x.Run(t.Context(), tc.request)
		must.Error(t, err)
		test.Eq(t, tc.class, api.AsError(err).Class())
	}
}

func TestLoad_simplePromptsNeedNoWorker(t *testing.T) {
	t.Parallel()
	f := &fakeWorkers{}
	dir := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(dir, "flow.dag.yaml"), []byte(`inputs: {q: {type: string}}
outputs: {o: {type: string, reference: "${p.output}"}}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {q: "${inputs.q}"}}
`), 0o600))
	must.NoError(t, os.WriteFile(filepath.Join(dir, "p.jinja2"), []byte("Q: {{ q }}\r\nend"), 0o600))
	x, err := Load(t.Context(), Config{Dir: dir, Workers: f})
	must.NoError(t, err)
	defer x.Close()
	line := x.RunLine(t.Context(), "id", value.NewDict())
	test.Eq(t, "InputNotFound", line.Info.Error.Class())
	inputs := value.NewDict()
	inputs.Set("q", "why")
	line = x.RunLine(t.Context(), "id", inputs)
	must.True(t, line.Completed(), must.Sprint(line.Info.Error))
	test.Eq(t, `{"o":"Q: why\nend"}`, string(line.Info.Output))
	test.StrHasPrefix(t, "id_p_", line.Nodes[0].RunID)
	test.Eq(t, 0, f.opened)
}

func TestFilling_leavesWhatTheProcessHas(t *testing.T) {
	t.Parallel()
	x := load(t, &fakeWorkers{}, "environment_variables: {A: 1, B: 2}\n"+wide(1), nil)
	env := Filling(func(name string) (string, bool) { return "x", name == "A" })(x.flow)
	test.MapEq(t, map[string]string{"B": "2"}, env)
	env = Overwriting(map[string]string{"A": "9", "C": "3"})(x.flow)
	test.MapEq(t, map[string]string{"A": "9", "B": "2", "C": "3"}, env)
}
