package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// connectionsFile holds an OpenAI connection for each pair of name and URL.
func connectionsFile(t *testing.T, pairs ...string) string {
	t.Helper()
	all := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		all[pairs[i]] = map[string]any{
			"type": "OpenAIConnection", "module": "promptflow.connections",
			"value": map[string]any{"api_key": openai.Key, "base_url": pairs[i+1] + "/v1"},
		}
	}
	data, err := json.Marshal(all)
	must.NoError(t, err)
	path := filepath.Join(t.TempDir(), "connections.json")
	must.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

const twoModels = `inputs:
  q: {type: string, default: hi}
outputs:
  one: {type: string, reference: "${one.output}"}
  two: {type: string, reference: "${two.output}"}
  n: {type: string, reference: "${p.output}"}
nodes:
- {name: p, type: prompt, source: {type: code, path: p.jinja2}, inputs: {n: "${inputs.q}"}}
- {name: one, type: llm, source: {type: code, path: chat.jinja2}, inputs: {q: "${inputs.q}", model: m, stream: true}, connection: a, api: chat}
- {name: two, type: llm, source: {type: code, path: chat.jinja2}, inputs: {q: "${inputs.q}", model: m}, connection: b, api: chat}
`

// gated is a model whose every piece is let through by hand; it gives up in time.
func gated(t *testing.T) (server *openai.Server, url string, open chan<- struct{}) {
	t.Helper()
	gate := make(chan struct{})
	server, url = openai.Start(t)
	server.BeforePiece = func(int) bool {
		select {
		case <-gate:
			return true
		case <-time.After(20 * time.Second):
			return false
		}
	}
	return server, url, gate
}

func chatServer(t *testing.T, yaml string, change func(*Config)) (*server, *httptest.Server, string) {
	t.Helper()
	s, h := newServer(t, "", change)
	dir := flowFolder(t, yaml)
	must.NoError(t, os.WriteFile(filepath.Join(dir, "chat.jinja2"), []byte("user:\n{{q}}"), 0o600))
	var err error
	s.served, err = s.flows.serve(t.Context(), dir)
	must.NoError(t, err)
	return s, h, dir
}

func follow(t *testing.T, ctx context.Context, h *httptest.Server, request api.RunRequest, see func(api.RunEvent) error) (*api.RunResult, error) {
	t.Helper()
	client, err := api.NewClient(h.URL, "")
	must.NoError(t, err)
	return client.Follow(ctx, "", request, see)
}

func TestEvents_severalOutputsStreamAtOnce(t *testing.T) {
	t.Parallel()
	a, urlA, openA := gated(t)
	_, urlB, openB := gated(t)
	s, h, _ := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", urlA, "b", urlB) })
	chunks := map[string]string{}
	order := ""
	var types []string
	open := map[string]chan<- struct{}{"one": openA, "two": openB}
	var left []string // which model may say its next piece, one after the other
	for range 7 {
		left = append(left, "two", "one")
	}
	next := func() {
		if len(left) > 0 {
			open[left[0]] <- struct{}{}
			left = left[1:]
		}
	}
	result, err := follow(t, t.Context(), h, api.RunRequest{RunID: "r1", Inputs: json.RawMessage(`{"q":"some words"}`)}, func(e api.RunEvent) error {
		if types = append(types, e.Type); e.Type != api.EventChunk {
			if e.Type == api.EventNode && strings.Count(strings.Join(types, " "), "node") == 6 {
				go next() // all nodes are done before the first piece
			}
			return nil
		}
		var text string
		must.NoError(t, json.Unmarshal(e.Chunk.Chunk, &text))
		chunks[e.Chunk.Output] += text
		order += e.Chunk.Output[:1]
		test.Eq(t, 0, *e.Chunk.Line)
		go next() // the next piece is not said before this one has arrived
		return nil
	})
	must.NoError(t, err)
	test.Eq(t, "totototototoTO", order[:12]+strings.ToUpper(order[12:]))
	said := "[1] user said: some words"
	test.Eq(t, map[string]string{"one": said, "two": said}, chunks)
	test.Eq(t, `{"one":"`+said+`","two":"`+said+`","n":"n=some words"}`, string(result.Output))
	test.Eq(t, api.StatusCompleted, result.Status)
	test.Eq(t, "r1", result.RunID)
	test.Eq(t, []string{"run", "node"}, types[:2])
	test.Eq(t, "result", types[len(types)-1])
	test.StrContains(t, string(a.Requests()[0].Body), `"stream":true`)
	for _, n := range result.NodeRuns {
		if n.Node != "p" {
			test.Eq(t, `"`+said+`"`, string(n.Output), test.Sprint("a record has what was said"))
		}
	}
	eventually(t, "the slot is free", func() bool { return len(s.slots) == 0 })
}

func TestEvents_withoutBeingAskedTheAnswerIsWhole(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	_, h, _ := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", url, "b", url) })
	a := ask(t, h, "POST", "/v1/runs", `{}`, "Accept", "application/json")
	must.Eq(t, 200, a.status)
	test.Eq(t, "application/json", a.header.Get("Content-Type"))
	test.StrContains(t, a.body, `"output":{"one":"[1] user said: hi","two":"[1] user said: hi","n":"n=hi"}`)
	for _, r := range server.Requests() {
		test.StrContains(t, string(r.Body), `"stream":false`)
	}
	a = ask(t, h, "POST", "/v1/runs", `{}`, "Accept", "application/json, text/event-stream;q=0.9")
	test.Eq(t, "text/event-stream; charset=utf-8", a.header.Get("Content-Type"))
	test.StrHasPrefix(t, "event: run\ndata: {\"run_id\":\"", a.body)
	test.StrContains(t, a.body, "\n\nevent: result\ndata: {")
}

func TestEvents_ofABatch(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, echoFlow, nil)
	var nodes, lines []string
	result, err := follow(t, t.Context(), h, api.RunRequest{Lines: []json.RawMessage{[]byte(`{"q":1}`), []byte(`{"n":2}`), []byte(`{"q":[NaN],"n":3}`)}}, func(e api.RunEvent) error {
		switch {
		case e.Run != nil:
			test.Eq(t, 3, e.Run.Lines)
		case e.Node != nil:
			nodes = append(nodes, fmt.Sprintln(*e.Node.Line, e.Node.Node, e.Node.Status))
		case e.Line != nil:
			lines = append(lines, fmt.Sprintln(e.Line.Line, e.Line.Status, string(e.Line.Output)))
		}
		return nil
	})
	must.NoError(t, err)
	slices.Sort(nodes)
	slices.Sort(lines)
	test.Eq(t, []string{"0 p Completed\n", "0 p Running\n", "2 p Completed\n", "2 p Running\n"}, nodes)
	test.Eq(t, []string{`0 Completed {"text":"n=1","q":1,"secret":"n=1"}` + "\n", "1 Failed null\n", `2 Completed {"text":"n=3","q":["NaN"],"secret":"n=3"}` + "\n"}, lines)
	test.SliceLen(t, 2, result.Outputs)
}

func TestEvents_failures(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	s, h, _ := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", url, "b", url) })
	a := ask(t, h, "POST", "/v1/runs", `{"inputs":[1],"run_id":"r9"}`, "Accept", api.EventStream)
	test.Eq(t, 400, a.status, test.Sprint("what is wrong before the run begins has a status"))
	test.Eq(t, "r9", a.failure(t).RunID)

	result, err := follow(t, t.Context(), h, api.RunRequest{Inputs: json.RawMessage(`{"q":"x"}`)}, func(api.RunEvent) error { return nil })
	must.NoError(t, err)
	must.Eq(t, api.StatusCompleted, result.Status)

	server.BeforePiece = func(n int) bool { return n < 3 }
	chunks := 0
	result, err = follow(t, t.Context(), h, api.RunRequest{}, func(e api.RunEvent) error {
		if e.Chunk != nil {
			chunks++
		}
		return nil
	})
	must.NoError(t, err)
	test.Eq(t, api.StatusFailed, result.Status)
	test.Eq(t, "APIConnectionError", result.Error.Class())
	test.Greater(t, 0, chunks)
	eventually(t, "the slot is free", func() bool { return len(s.slots) == 0 })
}

func TestEvents_whoGoesAwayEndsTheRun(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	blocked := make(chan struct{})
	server.BeforePiece = func(n int) bool {
		if n < 2 {
			return true
		}
		select {
		case <-blocked:
		case <-time.After(20 * time.Second):
		}
		return false
	}
	s, h, _ := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", url, "b", url) })
	ctx, cancel := context.WithCancel(t.Context())
	_, err := follow(t, ctx, h, api.RunRequest{}, func(e api.RunEvent) error {
		if e.Chunk != nil {
			cancel()
		}
		return nil
	})
	must.ErrorIs(t, err, context.Canceled)
	eventually(t, "the run's slot is free", func() bool { return len(s.slots) == 0 })
	close(blocked) // the models were still about to speak
}

func TestEvents_aReaderThatFailsEndsTheRun(t *testing.T) {
	t.Parallel()
	_, url := openai.Start(t)
	s, h, _ := chatServer(t, twoModels, func(c *Config) { c.Connections = connectionsFile(t, "a", url, "b", url) })
	enough := fmt.Errorf("enough")
	_, err := follow(t, t.Context(), h, api.RunRequest{}, func(e api.RunEvent) error {
		if e.Chunk != nil {
			return enough
		}
		return nil
	})
	test.ErrorIs(t, err, enough)
	eventually(t, "the run's slot is free", func() bool { return len(s.slots) == 0 })
}

func TestFollower_writesImagesForCallers(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	f := &follower{eventStream: newEventStream(w, func(error) {}), format: "basic", started: []byte("{}")}
	must.NoError(t, f.Chunk(nil, "o", value.NewImage([]byte("GIF"), "", "")))
	test.Eq(t, "event: run\ndata: {}\n\nevent: chunk\ndata: {\"line\":null,\"output\":\"o\",\"chunk\":{\"data:image/gif;base64\":\"R0lG\"}}\n\n", w.Body.String())
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(condition), wait.Timeout(20*time.Second), wait.Gap(10*time.Millisecond)), must.Sprint(what))
}
