package command

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// primitiveOutput is the name of the one output of a flow that returns no object.
const primitiveOutput = "output"

// chat is a conversation with a flow.
type chat struct {
	*submission
	c       *runCommand
	parts   flow.Chat
	inputs  *value.Dict // of every turn
	history []any
	dir     string // for images
}

// chat talks with a chat flow until nothing more is typed, as "pf flow test --interactive" does.
func (c *runCommand) chat(ctx context.Context, o *runOptions, s *submission) (int, error) {
	talk, err := newChat(c, o, s)
	if err != nil {
		return 0, err
	}
	welcome := "Welcome to chat flow, " + s.flow.Name + "."
	if s.flow.Name == "" {
		welcome = "Welcome to this chat flow."
	}
	_, _ = fmt.Fprintf(c.stdout, "%s\nPress Enter to send your message. Ctrl-C ends the chat.\n", welcome)
	typed := c.typed(ctx)
	code := exitOK
	for {
		_, _ = fmt.Fprint(c.stdout, "User: ")
		select {
		case <-ctx.Done():
		case text, ok := <-typed:
			if ok && strings.TrimSpace(text) == "" {
				continue
			}
			if ok {
				code = exitOK
				if err := talk.turn(ctx, text); err != nil {
					c.fail(err)
					code = exitFailure
				}
				continue
			}
		}
		_, _ = fmt.Fprintln(c.stdout, "\nThe chat has ended.")
		return code, nil
	}
}

// typed returns the lines of the standard input, which cannot be waited for together with anything else.
func (c *runCommand) typed(ctx context.Context) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(c.stdin)
		in.Buffer(nil, maxLine)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return lines
}

func newChat(c *runCommand, o *runOptions, s *submission) (*chat, error) {
	if s.flow == nil {
		return nil, fmt.Errorf("%s is no flow that can be read; see '%s flow validate %s'", o.flow, Name, o.flow)
	}
	parts, err := s.flow.Chat()
	if err != nil {
		return nil, fmt.Errorf("only chat flows can be talked with: %w", err)
	}
	t := &chat{submission: s, c: c, parts: parts, dir: o.outputDir}
	if t.inputs, err = value.DecodeDict(s.request.Inputs); err != nil {
		return nil, err
	}
	history, given := t.inputs.Get(parts.History)
	if !given {
		history = s.flow.Input(parts.History).Default
	}
	if text, isText := history.(string); isText {
		if history, err = value.Decode([]byte(text)); err != nil {
			return nil, fmt.Errorf("%w: -input %s: want a JSON list of what was said: %w", errUsage, parts.History, err)
		}
	}
	said, isList := history.([]any)
	if !isList && history != nil {
		return nil, fmt.Errorf("%w: the input %s must be a list of what was said, and is of type %s", errUsage, parts.History, value.TypeName(history))
	}
	t.history = said
	if s.flow.Form == flow.Prompty && len(s.request.Init) == 0 {
		s.request.Init = json.RawMessage(`{"model":{"response":"first"}}`) // the answer alone, whatever the file asks for
	}
	return t, nil
}

// turn sends what was said and shows the answer.
func (t *chat) turn(ctx context.Context, message string) error {
	t.inputs.Set(t.parts.Input, message)
	t.inputs.Set(t.parts.History, append([]any{}, t.history...)) // a list also when it is empty
	t.request.Inputs = value.Encode(t.inputs)
	_, _ = fmt.Fprint(t.c.stdout, "Bot: ")
	streamed := false
	result, err := t.follow(ctx, func(e api.RunEvent) error {
		if e.Chunk != nil && e.Chunk.Output == t.output() {
			streamed = true
			_, _ = fmt.Fprint(t.c.stdout, text(e.Chunk.Chunk))
		}
		return nil
	})
	if err == nil {
		if failed := failures(result); len(failed) > 0 {
			err = failed[0]
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(t.c.stdout)
		return err
	}
	return t.answered(message, result, streamed)
}

// output is the name of the output that answers.
func (t *chat) output() string {
	if t.parts.Output == "" {
		return primitiveOutput
	}
	return t.parts.Output
}

// answered shows the answer, unless it has been shown, and keeps it for the turns to come.
func (t *chat) answered(message string, result *api.RunResult, streamed bool) error {
	outputs, err := value.DecodeDict(result.Output)
	if err != nil {
		return fmt.Errorf("read outputs: %w", err)
	}
	t.remember(message, outputs)
	if streamed {
		_, _ = fmt.Fprintln(t.c.stdout)
		return nil
	}
	if err := saveImages(result, t.dir, false); err != nil {
		return err
	}
	shown, err := value.DecodeDict(result.Output)
	if err != nil {
		return fmt.Errorf("read outputs: %w", err)
	}
	answer, _ := shown.Get(t.output())
	_, _ = fmt.Fprintln(t.c.stdout, text(value.Encode(answer)))
	return nil
}

// remember adds a turn to the history, in prompt flow's format for flows of its kind.
func (t *chat) remember(message string, outputs *value.Dict) {
	entry := func(pairs ...any) *value.Dict {
		d := value.NewDict()
		for i := 0; i < len(pairs); i += 2 {
			d.Set(pairs[i].(string), pairs[i+1])
		}
		return d
	}
	if t.flow.Form == flow.DAG {
		t.history = append(t.history, entry("inputs", entry(t.parts.Input, message), "outputs", outputs))
		return
	}
	answer, _ := outputs.Get(t.output())
	t.history = append(t.history, entry("role", "user", "content", message), entry("role", "assistant", "content", answer))
}
