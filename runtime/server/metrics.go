package server

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// milliseconds are the bounds of prompt flow's histograms (core/_serving/monitor/metrics.py).
var milliseconds = []float64{1, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000, 25000, 50000, 75000, 100000, 300000}

// The response types of a flow's latency (prompt flow's).
const (
	firstByte = "firstbyte" // of an answer that streams
	lastByte  = "lastbyte"
	wholeBody = "default"
)

// metrics are what GET /metrics shows. Those with capitals are prompt flow's own, by the names and labels that its serving app gives
// them, as Prometheus spells them; their times are milliseconds. The label "flow" is the flow's name, or the beginning of its digest.
type metrics struct {
	handler http.Handler

	flowRequests, nodeRequests, rpcRequests, tokens *prometheus.CounterVec
	flowLatency, nodeLatency, rpcLatency, streaming *prometheus.HistogramVec
	byFlow                                          []interface{ DeletePartialMatch(prometheus.Labels) int }

	runs     *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(s *server) *metrics {
	registry := prometheus.NewRegistry()
	m := &metrics{handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{})}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, bounds []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: bounds}, labels)
		registry.MustRegister(h)
		return h
	}
	m.flowRequests = counter("Flow_Request_total", "Requests of flows.", "flow", "response_code", "exception", "streaming")
	m.nodeRequests = counter("Node_Request_total", "Runs of nodes.", "flow", "node", "run_status", "exception")
	m.rpcRequests = counter("RPC_Request_total", "Calls of models by nodes.", "flow", "node", "api_call", "exception")
	m.tokens = counter("Token_Consumption_total", "Tokens that models counted.", "flow", "node", "llm_engine", "token_type")
	m.flowLatency = histogram("Flow_Latency", "Milliseconds from a request to its answer.", milliseconds, "flow", "response_code", "streaming", "response_type")
	m.nodeLatency = histogram("Node_Latency", "Milliseconds that nodes ran.", milliseconds, "flow", "node", "run_status")
	m.rpcLatency = histogram("RPC_Latency", "Milliseconds that calls of models took.", milliseconds, "flow", "node", "api_call")
	m.streaming = histogram("Flow_Streaming_Response_Duration", "Milliseconds from the first to the last byte of answers that stream.", milliseconds, "flow")
	m.byFlow = []interface{ DeletePartialMatch(prometheus.Labels) int }{
		m.flowRequests, m.nodeRequests, m.rpcRequests, m.tokens, m.flowLatency, m.nodeLatency, m.rpcLatency, m.streaming,
	}
	m.runs = counter("promptflow_runs_total", "Submissions that ran, by how they ended.", "status")
	m.duration = histogram("promptflow_run_duration_seconds", "Seconds that submissions ran.", []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}, "status")
	s.gauges(registry)
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// gauges shows the state of the server.
func (s *server) gauges(registry *prometheus.Registry) {
	gauge := func(name, help string, read func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
	}
	gauge("promptflow_ready", "1 when the runtime takes submissions.", func() float64 {
		if s.ready.Load() && !s.draining.Load() {
			return 1
		}
		return 0
	})
	gauge("promptflow_concurrency", "Submissions that may run at once.", func() float64 { return float64(cap(s.slots)) })
	gauge("promptflow_runs_running", "Submissions that run.", func() float64 { return float64(len(s.slots)) })
	gauge("promptflow_flows_stored", "Bundles on disk.", func() float64 { stored, _, _ := s.flows.count(); return float64(stored) })
	gauge("promptflow_flows_bytes", "Bytes of bundles on disk.", func() float64 { _, size, _ := s.flows.count(); return float64(size) })
	gauge("promptflow_flows_loaded", "Flows that are ready to run.", func() float64 { _, _, loaded := s.flows.count(); return float64(loaded) })
	gauge("promptflow_workers", "Python workers that live.", func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.workers == nil {
			return 0
		}
		return float64(s.workers.Count())
	})
}

// count returns how many bundles there are, their bytes, and how many executors are loaded.
func (f *flows) count() (stored int, size int64, loaded int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.bundles {
		stored++
		size += b.bytes
		loaded += len(b.loaded)
	}
	return stored, size, loaded
}

// flowLabel is what metrics call a flow.
func flowLabel(l *lease) string { return flowName(l) }

// forget drops what is known of a flow that is gone, so that there is never more than of the flows that there are.
func (m *metrics) forget(flow string) {
	for _, vec := range m.byFlow {
		vec.DeletePartialMatch(prometheus.Labels{"flow": flow})
	}
}

// pythonBool is str(bool).
func pythonBool(v bool) string {
	if v {
		return "True"
	}
	return "False"
}

// answered counts a request of a flow; streams says that it was answered piece by piece, which counts its latency elsewhere.
func (m *metrics) answered(flow string, status int, err *api.Error, streams bool, began time.Time) {
	exception := ""
	if err != nil {
		exception = err.Class()
	}
	m.flowRequests.WithLabelValues(flow, strconv.Itoa(status), exception, pythonBool(streams)).Inc()
	if !streams {
		m.latency(flow, status, false, wholeBody, time.Since(began))
	}
}

func (m *metrics) latency(flow string, status int, streams bool, kind string, took time.Duration) {
	m.flowLatency.WithLabelValues(flow, strconv.Itoa(status), pythonBool(streams), kind).Observe(took.Seconds() * 1000)
}

// ran counts a submission and what its nodes did.
func (m *metrics) ran(flow string, result *api.RunResult) {
	m.runs.WithLabelValues(result.Status).Inc()
	m.duration.WithLabelValues(result.Status).Observe(result.Duration)
	m.nodes(flow, result.NodeRuns)
}

func (m *metrics) nodes(flow string, nodes []api.NodeRunInfo) {
	for i := range nodes {
		m.node(flow, &nodes[i])
	}
}

// usage is what a node's system_metrics say.
type usage struct {
	Duration         float64 `json:"duration"`
	PromptTokens     float64 `json:"prompt_tokens"`
	CompletionTokens float64 `json:"completion_tokens"`
}

func (m *metrics) node(flow string, n *api.NodeRunInfo) {
	exception := ""
	if n.Status != api.StatusCompleted {
		exception = "unknown"
	}
	if n.Error != nil {
		exception = n.Error.Class()
	}
	m.nodeRequests.WithLabelValues(flow, n.Node, n.Status, exception).Inc()
	var u usage
	if json.Unmarshal(n.SystemMetrics, &u) != nil || n.Status == api.StatusBypassed {
		return
	}
	m.nodeLatency.WithLabelValues(flow, n.Node, n.Status).Observe(u.Duration * 1000)
	if u.PromptTokens > 0 || u.CompletionTokens > 0 {
		engine := engineOf(n.Inputs)
		m.tokens.WithLabelValues(flow, n.Node, engine, "prompt_tokens").Add(u.PromptTokens)
		m.tokens.WithLabelValues(flow, n.Node, engine, "completion_tokens").Add(u.CompletionTokens)
	}
	if len(n.APICalls) > len("[]") {
		var calls []apiCall
		if json.Unmarshal(n.APICalls, &calls) == nil {
			for _, c := range calls {
				m.calls(flow, n.Node, "", c.Children) // the first is the node itself
			}
		}
	}
}

// engineOf is the model that a node names.
func engineOf(inputs json.RawMessage) string {
	d, err := value.DecodeDict(inputs)
	if err != nil {
		return ""
	}
	for _, name := range []string{"deployment_name", "model"} {
		if v, _ := d.Get(name); value.Truth(v) {
			return value.Str(v)
		}
	}
	return ""
}

// apiCall is what metrics take of a trace.
type apiCall struct {
	Name     string    `json:"name"`
	Start    float64   `json:"start_time"`
	End      float64   `json:"end_time"`
	Error    *apiError `json:"error"`
	Children []apiCall `json:"children"`
}

type apiError struct {
	Type string `json:"type"`
}

func (m *metrics) calls(flow, node, prefix string, calls []apiCall) {
	for _, c := range calls {
		name, exception := c.Name, ""
		if prefix != "" {
			name = prefix + "_" + name
		}
		if c.Error != nil {
			exception = c.Error.Type
		}
		if c.Start > 0 && c.End > 0 {
			m.rpcLatency.WithLabelValues(flow, node, name).Observe((c.End - c.Start) * 1000)
		}
		m.rpcRequests.WithLabelValues(flow, node, name, exception).Inc()
		m.calls(flow, node, name, c.Children)
	}
}
