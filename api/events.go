package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// EventStream is the media type that asks for a run's events instead of its result alone.
const EventStream = "text/event-stream"

// The types of a run's events, in the order in which they come: one EventRun, any of the next three as they happen, and one of the last
// two.
const (
	EventRun    = "run"    // RunStarted: the run has begun
	EventNode   = "node"   // NodeEvent: a node begins, ends or is bypassed
	EventChunk  = "chunk"  // ChunkEvent: a piece of an output that streams, of a single line only
	EventLine   = "line"   // LineEvent: a line of a batch has ended
	EventResult = "result" // RunResult: all of it, as without events
	EventError  = "error"  // ErrorBody: the run failed as a whole
)

// RunEvent is one event of a run that is followed. Exactly one of the fields below Type is set.
type RunEvent struct {
	Type   string
	Run    *RunStarted
	Node   *NodeEvent
	Chunk  *ChunkEvent
	Line   *LineEvent
	Result *RunResult
	Error  *Error
}

// RunStarted says which run has begun. Lines is the number of lines of a batch, 0 for a single line.
type RunStarted struct {
	RunID    string `json:"run_id"`
	Flow     string `json:"flow"`
	Status   string `json:"status"`
	Lines    int    `json:"lines,omitempty"`
	Runtime  string `json:"runtime,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// NodeEvent says what became of a node. Line is nil for the aggregation; Duration is in seconds, 0 while the node runs.
type NodeEvent struct {
	Line     *int    `json:"line"`
	Node     string  `json:"node"`
	RunID    string  `json:"run_id"`
	Status   string  `json:"status"`
	Duration float64 `json:"duration,omitempty"`
	Error    *Error  `json:"error,omitempty"`
}

// ChunkEvent is a piece of an output; most are texts.
type ChunkEvent struct {
	Line   *int            `json:"line"`
	Output string          `json:"output"`
	Chunk  json.RawMessage `json:"chunk"`
}

// LineEvent says that a line of a batch has ended.
type LineEvent struct {
	Line   int             `json:"line"`
	RunID  string          `json:"run_id"`
	Status string          `json:"status"`
	Output json.RawMessage `json:"output"`
	Error  *Error          `json:"error,omitempty"`
}

// Follow is Run that tells see every event of the run as it happens; an error of see ends the run and is returned.
func (c *Client) Follow(ctx context.Context, runtime string, request RunRequest, see func(RunEvent) error) (*RunResult, error) {
	body, err := request.encode()
	if err != nil {
		return nil, fmt.Errorf("encode submission: %w", err)
	}
	resp, err := c.send(ctx, http.MethodPost, runsPath(runtime), bytes.NewReader(body), "application/json", EventStream)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // which cancels the run when it has not ended
	return readEvents(resp.Body, see)
}

// FollowBundle is RunBundle that tells see every event of the run as it happens.
func (c *Client) FollowBundle(ctx context.Context, runtime string, request RunRequest, open func() (io.ReadCloser, error), see func(RunEvent) error) (*RunResult, error) {
	return c.withBundle(ctx, request, open, func() (*RunResult, error) { return c.Follow(ctx, runtime, request, see) })
}

// readEvents reads events until the last.
func readEvents(r io.Reader, see func(RunEvent) error) (*RunResult, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	name := ""
	var data []byte
	for lines.Scan() {
		line := lines.Text()
		field, text, _ := strings.Cut(line, ":")
		text = strings.TrimPrefix(text, " ")
		switch {
		case line == "" && name != "":
			event, err := decodeEvent(name, data)
			if err == nil {
				err = see(event)
			}
			switch {
			case err != nil:
				return nil, err
			case event.Result != nil:
				return event.Result, nil
			case event.Error != nil:
				return nil, event.Error
			}
			name, data = "", nil
		case field == "event":
			name = text
		case field == "data":
			data = append(data, text...)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return nil, fmt.Errorf("read events: %w: the connection broke before the run had ended", io.ErrUnexpectedEOF)
}

func decodeEvent(name string, data []byte) (RunEvent, error) {
	e := RunEvent{Type: name}
	var body ErrorBody
	into := map[string]any{EventRun: &e.Run, EventNode: &e.Node, EventChunk: &e.Chunk, EventLine: &e.Line, EventResult: &e.Result, EventError: &body}[name]
	if into == nil {
		return e, nil // of a later version
	}
	if err := json.Unmarshal(quoteNonFinite(data), into); err != nil {
		return e, fmt.Errorf("decode event %q: %w", name, err)
	}
	if e.Error = body.Error; name == EventError && e.Error == nil {
		return e, errors.New("decode event \"error\": it has no error")
	}
	return e, nil
}
