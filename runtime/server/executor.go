package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The executor service of prompt flow (promptflow.executor._service): with it prompt flow's own batch engine drives this runtime. Its
// callers share a file system with it and name folders there, so that it is open only where PROMPTFLOW_EXECUTOR_SERVICE says so.

// executorService is the flow of /initialize, and what runs under a name that /execution/cancel knows.
type executorService struct {
	loading sync.Mutex // one /initialize at a time
	mu      sync.Mutex
	current *coordinator
	running map[string]context.CancelCauseFunc // by run id
}

// coordinator is a batch that somebody else drives.
type coordinator struct {
	*run.Executor
	output  string // folder for the images of outputs
	given   string // folder for the images between lines and aggregation
	cleanup func()

	users sync.WaitGroup // requests that use it
}

var errCanceled = errors.New("the execution was cancelled")

func (s *server) executing(mux *http.ServeMux) {
	for pattern, e := range map[string]endpoint{
		"POST /initialize": s.initialize, "POST /execution": s.executeLine, "POST /aggregation": s.executeAggregation, "POST /finalize": s.finalize,
		"POST /execution/flow": s.executeFlow, "POST /execution/node": s.executeNode, "POST /execution/cancel": s.cancelExecution,
		"POST /tool/retrieve_tool_func_result": retrieveToolResult,
	} {
		mux.Handle(pattern, s.answer(s.onlyTrusted(s.ifExecuting(e))))
	}
}

// ifExecuting answers 404 where the service is closed.
func (s *server) ifExecuting(e endpoint) endpoint {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !s.config.ExecutorService {
			return fault([]string{"NotFound"}, http.StatusNotFound, "%s belongs to the executor service, which is closed. Please set PROMPTFLOW_EXECUTOR_SERVICE=on "+
				"where callers may name folders of this machine, or submit to /v1/runs.", r.URL.Path)
		}
		err := e(w, r)
		if err == nil {
			return nil
		}
		failure := api.AsError(err)
		if failure.RetryAfterSeconds > 0 {
			return failure
		}
		writeJSON(w, failure.HTTPStatus(), serviceError(failure))
		return nil
	}
}

// serviceError is the envelope of the executor service's errors (ErrorResponse.to_dict).
func serviceError(e *api.Error) []byte {
	o := object{}
	o.raw("error", encodeError(e))
	for _, name := range []string{"correlation", "environment", "location"} {
		o.set(name, nil)
	}
	o.set("componentName", "nomad-promptflow")
	o.set("time", time.Now().UTC().Format("2006-01-02T15:04:05.000000"))
	return o.end()
}

// serviceRequest is the body of a request.
type serviceRequest struct{ *value.Dict }

func (s *server) serviceBody(w http.ResponseWriter, r *http.Request) (serviceRequest, error) {
	body, err := readBody(w, r, s.config.MaxBody, requestTimeout)
	if err != nil {
		return serviceRequest{}, err
	}
	d, err := value.DecodeDict(body)
	if err != nil {
		return serviceRequest{}, badRun("is no JSON object: %v", err)
	}
	return serviceRequest{d}, nil
}

func (r serviceRequest) text(name string) string {
	v, _ := r.Get(name)
	text, _ := v.(string)
	return text
}

// dict returns an object; null and nothing are an empty one.
func (r serviceRequest) dict(name string) (*value.Dict, error) {
	v, _ := r.Get(name)
	switch v := v.(type) {
	case nil:
		return value.NewDict(), nil
	case *value.Dict:
		return v, nil
	default:
		return nil, badRun("has a '%s' of type %s", name, value.TypeName(v))
	}
}

func (r serviceRequest) need(names ...string) error {
	for _, name := range names {
		if !r.Has(name) {
			return badRun("has no '%s'", name)
		}
	}
	return nil
}

var flowFilePathInvalid = flow.Class{api.UserError, "FlowFilePathInvalid"}

// flowPath checks the paths of a request (BaseExecutionRequest.validate_request).
func (r serviceRequest) flowPath() (dir, file string, err error) {
	dir, file = r.text("working_dir"), r.text("flow_file")
	if !filepath.IsAbs(dir) || filepath.IsAbs(file) {
		return "", "", flow.Fail(flowFilePathInvalid, flow.TargetUnknown, "The working directory path ({working_dir}) or flow file path ({flow_file}) is invalid. "+
			"The working directory should be a absolute path and the flow file path should be relative to the working directory.", "working_dir", dir, "flow_file", file)
	}
	dir, file = filepath.Clean(dir), filepath.Clean(file)
	if !filepath.IsLocal(file) {
		return "", "", flow.Fail(flowFilePathInvalid, flow.TargetUnknown, "The flow file path ({flow_file}) is invalid. The path should be in the working directory.", "flow_file", file)
	}
	return dir, file, nil
}

// load loads the flow that a request names. Node is the one node to load, empty for all of them.
func (s *server) load(ctx context.Context, r serviceRequest, node string) (*run.Executor, error) {
	dir, file, err := r.flowPath()
	if err != nil {
		return nil, err
	}
	environment, err := r.dict("environment_variables")
	if err != nil {
		return nil, err
	}
	variables := map[string]string{}
	for name, v := range environment.All() {
		variables[name] = value.Str(v)
	}
	connections, err := s.writeConnections(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(connections) }()
	c := run.Config{
		Digest: file, Dir: dir, Node: node, Environment: run.Overwriting(variables), ConnectionsFile: filepath.Join(connections, "connections.json"),
		AnyFile: true, Logger: s.log, Images: s.flows.images, LineTimeout: s.config.LineTimeout,
	}
	if seconds, ok := r.Get("line_timeout_sec"); ok && seconds != nil {
		if n, err := value.Float(seconds); err == nil && n > 0 {
			c.LineTimeout = time.Duration(n * float64(time.Second))
		}
	}
	c.Workers = s.flows.theWorkers()
	return run.Load(ctx, c)
}

// writeConnections writes the connections of a request into a folder of their own, for as long as it takes to load them.
func (s *server) writeConnections(r serviceRequest) (dir string, err error) {
	connections, err := r.dict("connections")
	if err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp(s.flows.scratch, "connections-"); err != nil {
		return "", storeError(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "connections.json"), value.Encode(connections), 0o600); err != nil {
		return "", errors.Join(storeError(err), os.RemoveAll(dir))
	}
	return dir, nil
}

// initialize loads a flow for a batch. One that has not been finalized stays, as in prompt flow.
func (s *server) initialize(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("working_dir", "flow_file", "output_dir")
	}
	if err != nil {
		return err
	}
	s.batch.loading.Lock()
	defer s.batch.loading.Unlock()
	c, done, err := s.coordinator()
	if err != nil {
		if c, done, err = s.newCoordinator(r.Context(), request); err != nil {
			return err
		}
	}
	defer done()
	inputs := value.NewDict()
	for _, in := range c.Flow().Inputs {
		var history any
		if in.MarksHistory != nil {
			history = *in.MarksHistory
		}
		enum := in.Enum
		if enum == nil {
			enum = []any{}
		}
		inputs.Set(in.Name, members("type", in.Type, "default", in.Default, "description", in.Description, "enum", enum,
			"is_chat_input", in.IsChatInput, "is_chat_history", history))
	}
	writeJSON(w, http.StatusOK, value.Encode(members("inputs_definition", inputs, "has_aggregation", c.HasAggregation())))
	return nil
}

// newCoordinator makes a request's flow that of the service.
func (s *server) newCoordinator(ctx context.Context, request serviceRequest) (*coordinator, func(), error) {
	release, err := s.admit() // it has workers
	if err != nil {
		return nil, nil, err
	}
	defer release()
	x, err := s.load(ctx, request, "")
	if err != nil {
		return nil, nil, err
	}
	given, err := os.MkdirTemp(s.flows.scratch, "aggregation-")
	if err != nil {
		x.Close()
		return nil, nil, storeError(err)
	}
	output := request.text("output_dir")
	if !filepath.IsAbs(output) {
		output = filepath.Join(x.Dir(), output)
	}
	c := &coordinator{Executor: x, output: output, given: given, cleanup: func() {
		x.Close()
		_ = os.RemoveAll(given)
	}}
	c.users.Add(1)
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	s.batch.current = c
	return c, c.users.Done, nil
}

// coordinator returns the flow of /initialize for the time of a request.
func (s *server) coordinator() (*coordinator, func(), error) {
	s.batch.mu.Lock()
	defer s.batch.mu.Unlock()
	c := s.batch.current
	if c == nil {
		return nil, nil, api.NewError([]string{api.SystemError, "UninitializedError"}, "", "Please initialize the executor service with the '/initialize' api before sending execution requests.")
	}
	c.users.Add(1)
	return c, c.users.Done, nil
}

// executeLine runs one line, and answers with its result; with the results of its pieces, one a line, when events are asked for.
func (s *server) executeLine(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("run_id", "line_number", "inputs")
	}
	if err != nil {
		return err
	}
	inputs, err := request.dict("inputs")
	if err != nil {
		return err
	}
	n, _ := request.Get("line_number")
	number, ok := n.(int64)
	if !ok || number < 0 {
		return badRun("has a 'line_number' that is no number from 0 on")
	}
	c, done, err := s.coordinator()
	if err != nil {
		return err
	}
	defer done()
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	if acceptsEvents(acceptOf(r)) {
		return s.streamLine(w, r, c, request.text("run_id"), int(number), inputs)
	}
	line, err := c.BatchLine(r.Context(), request.text("run_id"), int(number), inputs)
	if err != nil {
		return err
	}
	s.stats.nodes(serviceLabel, line.Nodes)
	body, err := c.lineResult(line, int(number))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// serviceLabel is what metrics call the flows of the executor service.
const serviceLabel = "executor-service"

// lineResult writes a line's result (executor/_result.py, LineResult), with its images in files.
func (c *coordinator) lineResult(l *run.Line, number int) ([]byte, error) {
	output, err := c.Format().Files(l.Output, func(i *value.Image) (string, error) { return media.Save(i, c.output) })
	if err != nil {
		return nil, storeError(err)
	}
	given, err := c.Format().Files(l.Given(), func(i *value.Image) (string, error) {
		name, err := media.Save(i, c.given)
		return filepath.Join(c.given, name), err
	})
	if err != nil {
		return nil, storeError(err)
	}
	return encodeLine(l, numbered(output, number), given), nil
}

// numbered adds the line's number to its output.
func numbered(output any, number int) *value.Dict {
	d, _ := output.(*value.Dict)
	out := value.NewDictSize(d.Len() + 1)
	for name, v := range d.All() {
		out.Set(name, v)
	}
	if d != nil {
		out.Set("line_number", int64(number))
	}
	return out
}

func encodeLine(l *run.Line, output *value.Dict, given any) []byte {
	o := object{}
	o.set("output", output)
	o.set("aggregation_inputs", given)
	o.raw("run_info", encodeFlowRun(l.Info))
	o.raw("node_run_infos", encodeNodes(l.Nodes))
	return o.end()
}

func encodeNodes(nodes []api.NodeRunInfo) []byte {
	o := object{b: []byte{'{'}}
	for i, n := range nodes {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(append(value.Append(o.b, n.Node), ':'), encodeNodeRun(n)...)
	}
	return append(o.b, '}')
}

// streamLine answers with a line's result for every piece of its streaming output, as prompt flow's proxies of other executors read it.
func (s *server) streamLine(w http.ResponseWriter, r *http.Request, c *coordinator, runID string, number int, inputs *value.Dict) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	events := newEventStream(w, cancel)
	defer events.end()
	opened := c.OpenBatchLine(ctx, runID, number, inputs)
	defer opened.Close()
	whole := c.Format().Portable(opened.Outputs())
	sent := false
	begun := opened.Info()
	line := opened.Finish(func(output string, item any) error {
		piece := numbered(whole, number)
		piece.Set(output, item)
		sent = true
		return events.write(append(encodeLine(&run.Line{Info: withOutput(begun, piece)}, piece, value.NewDict()), '\n'))
	})
	if !sent || !line.Completed() {
		return ignoring(events.write(append(encodeLine(line, numbered(c.Format().Portable(line.Output), number), value.NewDict()), '\n')))
	}
	return nil
}

// ignoring drops the error of writing to a client that is gone.
func ignoring(error) error { return nil }

// withOutput is a record that has completed with an output.
func withOutput(info api.FlowRunInfo, output *value.Dict) api.FlowRunInfo {
	info.Status = api.StatusCompleted
	info.Output = value.Encode(output)
	info.Result = info.Output
	return info
}

// executeAggregation runs the aggregation over what the lines gave.
func (s *server) executeAggregation(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("run_id", "aggregation_inputs")
	}
	if err != nil {
		return err
	}
	inputs, err := request.dict("batch_inputs")
	if err != nil {
		return err
	}
	given, err := request.dict("aggregation_inputs")
	if err != nil {
		return err
	}
	c, done, err := s.coordinator()
	if err != nil {
		return err
	}
	defer done()
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	a, err := c.Aggregate(r.Context(), request.text("run_id"), inputs, given)
	if err != nil {
		return err
	}
	o := object{}
	o.set("output", value.NewDict())
	o.set("metrics", a.Metrics)
	o.raw("node_run_infos", encodeNodes(a.Nodes))
	writeJSON(w, http.StatusOK, o.end())
	return nil
}

// finalize ends the batch; requests that use it end first.
func (s *server) finalize(w http.ResponseWriter, _ *http.Request) error {
	_, done, err := s.coordinator()
	if err != nil {
		return err
	}
	done()
	s.batch.close()
	return writeObject(w, http.StatusOK, map[string]any{"status": "finalized"})
}

func (b *executorService) close() {
	b.mu.Lock()
	c := b.current
	b.current = nil
	b.mu.Unlock()
	if c != nil {
		c.users.Wait()
		c.cleanup()
	}
}

// track lets /execution/cancel find a run.
func (b *executorService) track(ctx context.Context, id string) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running == nil {
		b.running = map[string]context.CancelCauseFunc{}
	}
	if _, ok := b.running[id]; ok {
		cancel(nil)
		return nil, nil, fault([]string{"Conflict"}, http.StatusConflict, "The run %q is being executed already. Please choose another run_id.", id)
	}
	b.running[id] = cancel
	return ctx, func() {
		cancel(nil)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.running, id)
	}, nil
}

// cancelExecution ends a run of /execution/flow or /execution/node.
func (s *server) cancelExecution(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("run_id")
	}
	if err != nil {
		return err
	}
	s.batch.mu.Lock()
	cancel := s.batch.running[request.text("run_id")]
	s.batch.mu.Unlock()
	if cancel != nil {
		cancel(errCanceled)
	}
	return writeObject(w, http.StatusOK, map[string]any{"status": "canceled"})
}

// once loads a flow for one request and runs it.
func (s *server) once(w http.ResponseWriter, r *http.Request, node string, request serviceRequest, submission *api.RunRequest, write func(x *run.Executor, result *api.RunResult) ([]byte, error)) error {
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	id := request.text("run_id")
	ctx, done, err := s.batch.track(r.Context(), id)
	if err != nil {
		return err
	}
	defer done()
	canceled := func() error {
		if errors.Is(context.Cause(ctx), errCanceled) {
			return flow.Fail(flow.Class{api.UserError, "ExecutionCanceledError"}, flow.TargetExecutor, "The execution for run {run_id} is canceled.", "run_id", id)
		}
		return nil
	}
	x, err := s.load(ctx, request, node)
	if err != nil {
		return errors.Join(canceled(), err)
	}
	defer x.Close()
	submission.RunID, submission.Node = id, node
	result, err := x.Run(ctx, submission)
	if err := errors.Join(canceled(), err); err != nil {
		return err
	}
	body, err := write(x, result)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// executeFlow runs a flow on one set of inputs, with the aggregation over it.
func (s *server) executeFlow(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("working_dir", "flow_file", "output_dir", "run_id")
	}
	if err != nil {
		return err
	}
	inputs, err := request.dict("inputs")
	if err != nil {
		return err
	}
	return s.once(w, r, "", request, &api.RunRequest{Inputs: value.Encode(inputs)}, func(x *run.Executor, result *api.RunResult) ([]byte, error) {
		output, err := saved(x, request.text("output_dir"), result.Output)
		if err != nil {
			return nil, err
		}
		o := object{}
		o.set("output", output)
		o.set("aggregation_inputs", nil)
		o.raw("run_info", encodeFlowRun(result.FlowRuns[0]))
		o.raw("node_run_infos", encodeNodes(result.NodeRuns))
		return o.end(), nil
	})
}

// saved puts the images of an output into files below the flow's folder.
func saved(x *run.Executor, dir string, output json.RawMessage) (any, error) {
	v, err := value.Decode(output)
	if v == nil || err != nil {
		return value.NewDict(), err
	}
	out, err := media.Extract(v, func(i *value.Image) (string, error) {
		name, err := media.Save(i, filepath.Join(x.Dir(), dir))
		return filepath.Join(dir, name), err
	})
	if err != nil {
		return nil, storeError(err)
	}
	return out, nil
}

// executeNode runs one node of a flow.
func (s *server) executeNode(w http.ResponseWriter, r *http.Request) error {
	request, err := s.serviceBody(w, r)
	if err == nil {
		err = request.need("working_dir", "flow_file", "output_dir", "run_id", "node_name")
	}
	if err != nil {
		return err
	}
	inputs, err := request.dict("flow_inputs")
	if err != nil {
		return err
	}
	outputs, err := request.dict("dependency_nodes_outputs")
	if err != nil {
		return err
	}
	node := request.text("node_name")
	if strings.TrimSpace(node) == "" {
		return badRun("has no 'node_name'")
	}
	submission := &api.RunRequest{Inputs: value.Encode(inputs), NodeOutputs: value.Encode(outputs)}
	return s.once(w, r, node, request, submission, func(x *run.Executor, result *api.RunResult) ([]byte, error) {
		record := result.NodeRuns[0]
		if result.Output != nil {
			output, err := saved(x, request.text("output_dir"), result.Output)
			if err != nil {
				return nil, err
			}
			record.Output = value.Encode(output)
		}
		return encodeNodeRun(record), nil
	})
}

// retrieveToolResult refuses what prompt flow's own service has given up for safety's sake.
func retrieveToolResult(http.ResponseWriter, *http.Request) error {
	return api.NewError([]string{api.SystemError, "NotImplementedError"}, "", "Function deprecated for security reasons. This should not be reachable.").WithStatus(http.StatusNotImplemented)
}
