package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const (
	// eventTimeout bounds the writing of one event: who does not read loses the run.
	eventTimeout = time.Minute
	// heartbeat is how often something is said while nothing happens, so that no proxy takes the connection for dead.
	heartbeat = 15 * time.Second
)

// acceptsEvents reports whether events are asked for by name; no wildcard asks for them (prompt flow's rule).
func acceptsEvents(accept string) bool { return slices.Contains(mediaTypes(accept), api.EventStream) }

// eventStream writes server-sent events. The answer begins with the first of them, so that what goes wrong before is answered with a
// status of its own.
type eventStream struct {
	w      http.ResponseWriter
	flush  *http.ResponseController
	cancel context.CancelCauseFunc // of what the events are about

	mu    sync.Mutex
	begun bool
	first time.Time // when it began
	err   error
}

// firstAt returns when the answer began, or now.
func (e *eventStream) firstAt() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		return time.Now()
	}
	return e.first
}

// streamed counts an answer that came piece by piece.
func (s *server) streamed(flow string, began, first time.Time) {
	s.stats.answered(flow, http.StatusOK, nil, true, began)
	s.stats.latency(flow, http.StatusOK, true, firstByte, first.Sub(began))
	s.stats.latency(flow, http.StatusOK, true, lastByte, time.Since(began))
	s.stats.streaming.WithLabelValues(flow).Observe(time.Since(first).Seconds() * 1000)
}

func newEventStream(w http.ResponseWriter, cancel context.CancelCauseFunc) *eventStream {
	return &eventStream{w: w, flush: http.NewResponseController(w), cancel: cancel}
}

// write sends text as it is and cancels when that fails: the client is gone.
func (e *eventStream) write(text []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.locked(text)
}

func (e *eventStream) locked(text []byte) error {
	if e.err != nil {
		return e.err
	}
	if !e.begun {
		e.begun, e.first = true, time.Now()
		header := e.w.Header()
		header.Set("Content-Type", api.EventStream+"; charset=utf-8")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no")
		e.w.WriteHeader(http.StatusOK)
	}
	_ = e.flush.SetWriteDeadline(time.Now().Add(eventTimeout)) // test recorders have none
	_, err := e.w.Write(text)
	if err == nil {
		err = e.flush.Flush()
	}
	if err != nil {
		e.err = err
		e.cancel(err)
	}
	return err
}

// beat says something while nothing happens, until ctx ends.
func (e *eventStream) beat(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.mu.Lock()
			if e.begun {
				_ = e.locked([]byte(": still running\n\n")) // kept in err
			}
			e.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// end lifts the bound on writing: the connection may serve other requests.
func (e *eventStream) end() {
	_ = e.flush.SetWriteDeadline(time.Time{})
}

func event(name string, data []byte) []byte {
	b := append([]byte("event: "+name+"\ndata: "), data...)
	return append(b, "\n\n"...)
}

// follower tells a client of a run.
type follower struct {
	*eventStream
	format  media.Format
	started []byte // the first event
	once    sync.Once
}

func (f *follower) send(name string, data []byte) error {
	f.once.Do(func() { _ = f.write(event(api.EventRun, f.started)) }) // its error comes again
	return f.write(event(name, data))
}

// Node implements run.Watcher.
func (f *follower) Node(line *int, r api.NodeRunInfo) {
	o := object{}
	o.set("line", index(line))
	o.set("node", r.Node)
	o.set("run_id", r.RunID)
	o.set("status", r.Status)
	var metrics struct {
		Duration float64 `json:"duration"`
	}
	if json.Unmarshal(r.SystemMetrics, &metrics) == nil && metrics.Duration > 0 {
		o.set("duration", metrics.Duration)
	}
	o.optional("error", encodeError(r.Error))
	_ = f.send(api.EventNode, o.end()) // a client that is gone has cancelled the run
}

// Chunk implements run.Watcher.
func (f *follower) Chunk(line *int, output string, item any) error {
	o := object{}
	o.set("line", index(line))
	o.set("output", output)
	o.set("chunk", f.format.Portable(item))
	return f.send(api.EventChunk, o.end())
}

// Line implements run.Watcher.
func (f *follower) Line(info api.FlowRunInfo, output *value.Dict) {
	o := object{}
	o.set("line", index(info.Index))
	o.set("run_id", info.RunID)
	o.set("status", info.Status)
	o.set("output", f.format.Portable(output))
	o.optional("error", encodeError(info.Error))
	_ = f.send(api.EventLine, o.end()) // see Node
}

// followRun runs a submission and answers with its events.
func (s *server) followRun(w http.ResponseWriter, r *http.Request, flow *lease, request *api.RunRequest, began time.Time) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	o := object{}
	o.set("run_id", request.RunID)
	o.set("flow", flow.name)
	o.set("status", api.StatusRunning)
	if len(request.Lines) > 0 {
		o.set("lines", int64(len(request.Lines)))
	}
	o.set("runtime", s.config.Runtime)
	o.set("instance", s.config.Instance)
	f := &follower{eventStream: newEventStream(w, cancel), format: flow.Format(), started: o.end()}
	defer f.end()
	var beating sync.WaitGroup
	beating.Go(func() { f.beat(ctx) })
	defer beating.Wait()
	defer cancel(nil)
	err := s.guard(func(http.ResponseWriter, *http.Request) error {
		result, err := flow.Follow(ctx, request, f)
		if err != nil {
			return err
		}
		s.stats.ran(flowLabel(flow), result)
		s.streamed(flowLabel(flow), began, f.firstAt())
		_ = f.send(api.EventResult, encodeResult(s.signed(result, flow))) // see Node
		return nil
	}, w, r)
	switch {
	case err == nil:
		return nil
	case !f.begun:
		return s.unanswered(flow, err, began)
	}
	body, marshalError := json.Marshal(api.ErrorBody{Error: api.AsError(withRun(err, request.RunID))})
	if marshalError == nil {
		_ = f.send(api.EventError, body) // see Node
	}
	return nil
}
