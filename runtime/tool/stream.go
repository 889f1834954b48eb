package tool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const (
	// streamIdle bounds the wait for the next piece of an answer, as OpenAI's client bounds each of its reads.
	streamIdle = 10 * time.Minute
	// maxEvent bounds one piece of an answer, in bytes.
	maxEvent = 8 << 20
	// drainTime and maxDrained bound what comes behind the last piece.
	drainTime  = 100 * time.Millisecond
	maxDrained = 64 << 10
)

// opened is an answer that comes piece by piece.
type opened struct {
	response *http.Response
	cancel   context.CancelFunc
	idle     *time.Timer
}

func (o *opened) close() {
	o.idle.Stop()
	o.cancel()
	_ = o.response.Body.Close()
}

// open makes one attempt. The answer lives as long as life; ctx bounds the wait for its beginning. Errors are those of send.
func (c *Client) open(ctx, life context.Context, e *endpoint, target string, body []byte) (*opened, error) {
	reading, cancel := context.WithCancel(life)
	stopWaiting := context.AfterFunc(ctx, cancel)
	late := time.AfterFunc(attemptTimeout, cancel)
	resp, err := c.post(reading, e, target, body)
	late.Stop()
	stopWaiting()
	if err != nil {
		defer cancel()
		if ctx.Err() == nil && reading.Err() != nil {
			return nil, &apiFailure{class: "APITimeoutError", text: "Request timed out.", retriable: true}
		}
		return nil, c.transportFailure(ctx, e, target, err)
	}
	o := &opened{response: resp, cancel: cancel, idle: time.AfterFunc(streamIdle, cancel)}
	if resp.StatusCode >= 400 {
		defer o.close()
		data, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what there is of it
		return nil, statusFailure(resp, data)
	}
	return o, nil
}

// stream asks for an answer piece by piece. It returns when the answer has begun; the result's output reads it.
func (r *llmRun) stream(ctx, life context.Context, body *value.Dict) error {
	o, err := attempt(ctx, r, body, func(target string, data []byte) (*opened, error) {
		return r.llm.client.open(ctx, life, &r.llm.endpoint, target, data)
	})
	if err != nil {
		return err
	}
	s := &said{llm: r.llm, opened: o}
	r.result.Output = &value.Stream{Read: s.read, Repr: "<generator object " + r.llm.provider + "." + r.llm.api + " " + uuid.NewString() + ">"}
	r.result.Streamed = s.used
	return nil
}

// said reads what a model says.
type said struct {
	llm    *LLM
	opened *opened
	once   sync.Once

	mu    sync.Mutex
	usage Usage
}

func (s *said) used() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage
}

// read hands over the text of every piece as promptflow-tools' generators yield it, empty ones too. A second reader gets nothing.
func (s *said) read(ctx context.Context, emit func(item any) error) (err error) {
	s.once.Do(func() {
		defer s.opened.close()
		stop := context.AfterFunc(ctx, s.opened.cancel)
		defer stop()
		err = s.events(ctx, emit)
	})
	return err
}

// events reads server-sent events: lines of data, ended by an empty line.
func (s *said) events(ctx context.Context, emit func(item any) error) error {
	lines := bufio.NewScanner(s.opened.response.Body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var data []byte
	for lines.Scan() {
		s.opened.idle.Reset(streamIdle)
		line := bytes.TrimSuffix(lines.Bytes(), []byte("\r"))
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, bytes.TrimPrefix(rest, []byte(" "))...), '\n')
			continue
		}
		if len(line) > 0 || len(data) == 0 {
			continue // another field, a comment, or nothing
		}
		if bytes.HasPrefix(data, []byte("[DONE]")) {
			s.drain()
			return nil
		}
		if err := s.event(data, emit); err != nil {
			return err
		}
		data = data[:0]
	}
	return s.ended(ctx, lines.Err())
}

// drain reads the end of an answer that is done, so that its connection can be used again; endpoints that do not end it are not
// waited for.
func (s *said) drain() {
	late := time.AfterFunc(drainTime, s.opened.cancel)
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, s.opened.response.Body, maxDrained) // nothing of it matters
}

// ended says how an answer ended that was not said to be done: some endpoints just close.
func (s *said) ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return canceled(ctx, context.Cause(ctx))
	case err == nil:
		return nil
	case errors.Is(err, bufio.ErrTooLong):
		return llmError("ValueError", "the endpoint sent a piece of more than 8 MiB")
	default:
		f := &apiFailure{class: "APIConnectionError", text: "Connection error.", mend: "The model's answer broke off: " + err.Error() + "."}
		return wrapped(f, "")
	}
}

// event takes one piece.
func (s *said) event(data []byte, emit func(item any) error) error {
	v, err := value.Decode(data)
	if err != nil {
		return llmError("JSONDecodeError", err.Error()+": a piece of the answer is no JSON")
	}
	piece, ok := v.(*value.Dict)
	if !ok {
		return llmError("AttributeError", "'"+value.TypeName(v)+"' object has no attribute 'choices'")
	}
	if failure, _ := piece.Get("error"); value.Truth(failure) {
		return s.failed(failure)
	}
	if u := usageOf(piece); u.Known {
		s.mu.Lock()
		s.usage = u
		s.mu.Unlock()
	}
	c, _ := piece.Get("choices")
	choices, _ := c.([]any)
	if len(choices) == 0 {
		return nil
	}
	first, _ := choices[0].(*value.Dict)
	return emit(s.text(first))
}

func (s *said) failed(v any) error {
	text := "An error occurred during streaming"
	if detail, ok := v.(*value.Dict); ok {
		if m, _ := detail.Get("message"); value.Truth(m) && value.TypeName(m) == "str" {
			text = value.Str(m)
		}
	}
	f := &apiFailure{class: "APIError", text: text}
	s.llm.endpoint.scrub(f)
	return wrapped(f, "")
}

// text is the text of a choice; OpenAI's completions alone let a null through.
func (s *said) text(choice *value.Dict) any {
	if s.llm.api == apiCompletion {
		text, has := choice.Get("text")
		if text == nil && (!has || s.llm.provider == providerAzure) {
			return ""
		}
		return text
	}
	d, _ := choice.Get("delta")
	delta, _ := d.(*value.Dict)
	if content, _ := delta.Get("content"); content != nil {
		return content
	}
	return ""
}
