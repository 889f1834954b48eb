package run

import (
	"context"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/graph"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// stage runs nodes of one graph: those of a line, or those of the aggregation.
type stage struct {
	x           *Executor
	runID       string // of the submission
	parentRunID string // of the line
	number      *int   // of the line
	graph       *graph.Graph
	session     *session
	timeout     time.Duration // of a node; 0: none
	records     []*record     // in the order in which the nodes were started or bypassed
	streaming   streaming
	life        context.Context // of the line, in which streams are read
	watcher     Watcher         // nil: nobody watches
	said        []*said

	mu      sync.Mutex
	escapes map[string]*tool.Escapes // what the texts of prompt nodes hide
}

func (s *stage) escapesOf(node string) *tool.Escapes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.escapes[node]
}

func (s *stage) keepEscapes(node string, e *tool.Escapes) {
	if e == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.escapes == nil {
		s.escapes = map[string]*tool.Escapes{}
	}
	s.escapes[node] = e
}

// finished is a node that ran.
type finished struct {
	record  *record
	outcome outcome
}

// run runs all nodes. The first node that fails ends it: waiting nodes do not start and running ones are cancelled. It returns
// when none runs any more.
func (s *stage) run(ctx context.Context) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan finished)
	slots := make(chan struct{}, nodeConcurrency)
	active := 0
	var failure error
	for failure == nil && !s.graph.Done() {
		started, err := s.start(running, slots, done)
		active += started
		if failure = err; err != nil || s.graph.Done() {
			break
		}
		if active == 0 {
			failure = flow.Fail(flow.Class{api.SystemError, "NoNodeExecutedError"}, flow.TargetUnknown, "No nodes are ready for execution, but the flow is not completed.")
			break
		}
		failure = s.finish(ctx, <-done)
		active--
	}
	cancel()
	for ; active > 0; active-- {
		_ = s.finish(ctx, <-done) // recorded; the first failure is the run's
	}
	if failure == nil {
		failure = cause(ctx)
	}
	return failure
}

// start bypasses and starts what has become ready.
func (s *stage) start(ctx context.Context, slots chan struct{}, done chan<- finished) (started int, err error) {
	ready, bypassed, err := s.graph.Next(ctx)
	for _, b := range bypassed {
		s.x.log.Debug("bypass node", "run", s.parentRunID, "node", b.Node.Name, "reason", b.Log)
		r := s.bypassedRecord(b.Node)
		s.records = append(s.records, r)
		s.tell(r.info)
	}
	if err != nil {
		return 0, err
	}
	for _, n := range ready {
		st := s.x.steps[n.Name]
		inputs, warnings, err := s.graph.Inputs(n, st.hasDefault)
		for _, w := range warnings {
			s.x.log.Warn(w, "run", s.parentRunID)
		}
		if err != nil {
			return started, err
		}
		r := s.newRecord(n)
		s.records = append(s.records, r)
		started++
		go func() { done <- finished{r, s.step(ctx, slots, st, r, inputs)} }()
	}
	return started, nil
}

// step waits for a slot and runs one node.
func (s *stage) step(ctx context.Context, slots chan struct{}, st step, r *record, inputs []graph.Input) (o outcome) {
	n := r.node
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return outcome{unstarted: true, err: canceled("Received cancel request")}
	}
	s.tell(r.info)
	defer func() {
		if r := recover(); r != nil {
			s.x.log.Error("node panicked", "node", n.Name, "panic", r)
			o.err = api.NewError([]string{api.SystemError, "UnexpectedError"}, flow.TargetExecutor, "Node '%s' failed in the runtime itself: %v. Please report this.", n.Name, r)
		}
	}()
	if s.timeout > 0 {
		bounded, cancel := context.WithTimeoutCause(ctx, s.timeout, &nodeTimeout{n, s.timeout})
		defer cancel()
		return timedOut(bounded, st.run(bounded, s, n, inputs))
	}
	return st.run(ctx, s, n, inputs)
}

// finish records a node that ran and puts its output into the graph.
func (s *stage) finish(ctx context.Context, f finished) error {
	n := f.record.node
	if stream, ok := f.outcome.value.(*value.Stream); ok {
		f.outcome.value = s.keepSaid(f.record, stream, f.outcome.streamed)
	}
	f.record.complete(ctx, f.outcome)
	if !f.outcome.unstarted {
		s.tell(f.record.info)
	}
	if f.outcome.err != nil {
		return f.outcome.err
	}
	s.keepEscapes(n.Name, f.outcome.escapes)
	s.graph.Complete(n.Name, f.outcome.value)
	return nil
}

// recorded returns the records of nodes that were started or bypassed.
func (s *stage) recorded() []api.NodeRunInfo {
	infos := make([]api.NodeRunInfo, 0, len(s.records))
	for _, r := range s.records {
		if !r.unstarted {
			infos = append(infos, r.info)
		}
	}
	return infos
}
