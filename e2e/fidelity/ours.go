package fidelity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/server"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Ours is this project's runtime: its HTTP server, spoken to as a gateway does.
type Ours struct {
	client  *api.Client
	http    *http.Client
	data    *regexp.Regexp // folders of flows
	cancel  context.CancelFunc
	done    chan error
	timeout time.Duration // of a case
}

// Start starts a runtime in dir, whose path must be short, for sockets' paths are.
func Start(ctx context.Context, dir, python string, connections *value.Dict, timeout time.Duration) (*Ours, error) {
	file := filepath.Join(dir, "connections.json")
	if err := os.WriteFile(file, value.Encode(connections), 0o600); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	socket := filepath.Join(dir, "socket")
	o := &Ours{
		timeout: timeout, done: make(chan error, 1),
		data: regexp.MustCompile(regexp.QuoteMeta(filepath.Join(data, "flows")) + `/[0-9a-f]{64}`),
	}
	var err error
	if o.client, err = api.NewClient("unix:"+socket, ""); err != nil {
		return nil, err
	}
	o.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	ctx, o.cancel = context.WithCancel(ctx)
	go func() {
		o.done <- server.Run(ctx, server.Config{
			Listen: "unix:" + socket, Connections: file, Data: data, Python: python, Workers: 2, MaxConcurrency: 64,
		})
	}()
	if err := o.waitReady(ctx); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *Ours) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := o.client.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case ended := <-o.done:
			o.done <- ended
			return fmt.Errorf("start the runtime: %w", errors.Join(ended, err))
		case <-ctx.Done():
			return fmt.Errorf("start the runtime: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// Close stops the runtime.
func (o *Ours) Close() error {
	o.cancel()
	o.http.CloseIdleConnections()
	return <-o.done
}

// Run runs the cases of a flow.
func (o *Ours) Run(ctx context.Context, f *Flow) Outcome {
	digest, err := o.handIn(ctx, f.Dir)
	if err != nil {
		return Outcome{Broken: err.Error()}
	}
	outcome := Outcome{Cases: make([]any, len(f.Cases))}
	for i, c := range f.Cases {
		result, err := o.submit(ctx, f, digest, c)
		if err != nil {
			return Outcome{Broken: err.Error()}
		}
		outcome.Cases[i] = o.anonymous(result)
	}
	return outcome
}

func (o *Ours) handIn(ctx context.Context, dir string) (string, error) {
	var packed bytes.Buffer
	digest, _, err := bundle.Pack(ctx, dir, &packed)
	if err != nil {
		return "", err
	}
	return digest, o.client.PutFlow(ctx, digest, &packed)
}

func (o *Ours) submit(ctx context.Context, f *Flow, digest string, c Case) (*value.Dict, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runtime/v1/runs", bytes.NewReader(value.Encode(c.request(f, digest))))
	if err != nil {
		return nil, err
	}
	answer, err := o.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	d, err := value.DecodeDict(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %.300q: %w", answer.Status, body, err)
	}
	if answer.StatusCode != http.StatusOK {
		e, _ := d.Get("error")
		return dict("failure", failureOf(e)), nil
	}
	if c.Node != "" {
		return nodeSummary(d), nil
	}
	return summary(d, c.Lines != nil), nil
}

// request is the submission of a case.
func (c Case) request(f *Flow, digest string) *value.Dict {
	d := c.dict()
	if c.Lines == nil && c.Inputs == nil {
		d.Set("inputs", value.NewDict())
	}
	d.Set("flow", digest)
	d.Set("run_id", "run")
	if f.File != "" {
		d.Set("flow_file", f.File)
	}
	for name, v := range c.Setup.dict().All() {
		if name == "environment" {
			name = "environment_variables"
		}
		d.Set(name, v)
	}
	return d
}

// anonymous replaces the folder that the runtime keeps the flow in.
func (o *Ours) anonymous(v any) any {
	switch v := v.(type) {
	case string:
		return o.data.ReplaceAllString(v, flowFolder)
	case []any:
		for i := range v {
			v[i] = o.anonymous(v[i])
		}
	case *value.Dict:
		for k, item := range v.All() {
			v.Set(k, o.anonymous(item))
		}
	}
	return v
}

func dict(pairs ...any) *value.Dict {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return d
}

// summary puts a run's answer into the shape in which testdata/oracle.py writes results.
func summary(run *value.Dict, batch bool) *value.Dict {
	lines := []any{}
	aggregated := value.NewDict()
	failed := false
	for _, info := range dicts(run, "flow_runs") {
		failed = failed || get(info, "error") != nil
		nodes := value.NewDict()
		for _, n := range dicts(run, "node_runs") {
			name := value.Str(get(n, "node"))
			switch {
			case strings.HasSuffix(value.Str(get(n, "run_id")), "_reduce"):
				aggregated.Set(name, node(n))
			case get(n, "parent_run_id") == get(info, "run_id") && !cutOff(n):
				nodes.Set(name, node(n))
			}
		}
		var output any
		if get(info, "status") == api.StatusCompleted {
			output = get(info, "output")
		}
		lines = append(lines, dict("status", get(info, "status"), "run_id", get(info, "run_id"), "index", get(info, "index"), "inputs", get(info, "inputs"),
			"output", output, "error", failureOf(get(info, "error")), "nodes", nodes, "metrics", counts(get(info, "system_metrics")),
			"message_format", get(info, "message_format"), "flow_id", get(info, "flow_id")))
	}
	var aggregation any
	metrics, _ := get(run, "metrics").(*value.Dict)
	switch {
	case len(lines) > 0 && !failed && get(run, "error") != nil:
		aggregation = dict("failure", failureOf(get(run, "error")))
	case aggregated.Len() > 0 || metrics.Len() > 0:
		aggregation = dict("nodes", aggregated, "metrics", metrics)
	}
	return dict("lines", lines, "aggregation", aggregation)
}

// cutOff reports whether a node still ran when its line failed: we cancel it, prompt flow leaves it alone and records that it runs.
func cutOff(n *value.Dict) bool {
	e, _ := get(n, "error").(*value.Dict)
	return get(n, "status") == api.StatusCanceled && strings.Contains(value.Str(get(e, "message")), "Received cancel request")
}

// nodeSummary is summary for the run of one node alone, whose ids are random.
func nodeSummary(run *value.Dict) *value.Dict {
	nodes := dicts(run, "node_runs")
	if len(nodes) != 1 {
		return dict("nodes", int64(len(nodes)))
	}
	n := node(nodes[0])
	for _, k := range n.Keys() {
		if strings.HasSuffix(k, "run_id") {
			n.Delete(k)
		}
	}
	return dict("node", n)
}

func get(d *value.Dict, name string) any {
	v, _ := d.Get(name)
	return v
}

func dicts(d *value.Dict, name string) []*value.Dict {
	list, _ := get(d, name).([]any)
	var out []*value.Dict
	for _, item := range list {
		if d, ok := item.(*value.Dict); ok {
			out = append(out, d)
		}
	}
	return out
}

// counts returns the metrics that the system keeps; times differ.
func counts(v any) any {
	d, _ := v.(*value.Dict)
	out := value.NewDict()
	for name, v := range d.All() {
		if name == "duration" {
			v = true
		}
		out.Set(name, v)
	}
	return out
}

// stamp is the time before everything that a node writes.
var stamp = regexp.MustCompile(`\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000\] `)

func node(n *value.Dict) *value.Dict {
	logs := value.NewDict()
	if d, ok := get(n, "logs").(*value.Dict); ok {
		for name, text := range d.All() {
			logs.Set(name, stamp.ReplaceAllString(value.Str(text), ""))
		}
	}
	return dict("status", get(n, "status"), "run_id", get(n, "run_id"), "inputs", get(n, "inputs"), "output", get(n, "output"), "error", failureOf(get(n, "error")),
		"index", get(n, "index"), "parent_run_id", get(n, "parent_run_id"), "flow_run_id", get(n, "flow_run_id"), "logs", logs,
		"metrics", counts(get(n, "system_metrics")), "message_format", get(n, "message_format"))
}

func failureOf(v any) any {
	e, ok := v.(*value.Dict)
	if !ok {
		return nil
	}
	codes := []any{}
	for at, ok := e, true; ok; at, ok = get(at, "innerError").(*value.Dict) {
		codes = append(codes, get(at, "code"))
	}
	var typ, line any
	for _, info := range dicts(e, "additionalInfo") {
		if details, ok := get(info, "info").(*value.Dict); ok && get(info, "type") == "ToolExecutionErrorDetails" {
			typ, line = get(details, "type"), get(details, "lineno")
		}
	}
	return dict("codes", codes, "message", get(e, "message"), "type", typ, "line", line)
}
