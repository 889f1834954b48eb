package tool

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// recording serves as many endpoints as there are cases, each below its own path, and keeps what each received.
type recording struct {
	mu       sync.Mutex
	received map[string][]openai.Request
}

func (r *recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name := strings.Split(req.URL.Path, "/")[1]
	server := &openai.Server{APIKey: openai.Key}
	http.StripPrefix("/"+name, server).ServeHTTP(w, req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received[name] = append(r.received[name], server.Requests()...)
}

// env is an environment with nothing set.
func env(string) (string, bool) { return "", false }

func connections(t *testing.T, entries *value.Dict, lookup connection.Lookup) *connection.Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "connections.json")
	must.NoError(t, os.WriteFile(path, value.Encode(entries), 0o600))
	set, err := connection.Load(path, lookup)
	must.NoError(t, err)
	return set
}

const (
	azure      = connection.AzureOpenAI
	openAI     = connection.OpenAI
	serverless = connection.Serverless
)

func entry(class, url string) *value.Dict {
	values := dict("api_key", openai.Key)
	switch class {
	case azure:
		values.Set("api_base", url+"/")
	case serverless:
		values.Set("api_base", url)
	default:
		values.Set("base_url", url+"/v1/")
		values.Set("organization", "org-1")
	}
	return dict("type", class, "module", "promptflow.connections", "value", values)
}

type nodeCase struct {
	stream bool
	class  string
	api    string
	prompt string
	inputs *value.Dict // literals and "${inputs.x}"
	flow   *value.Dict
}

func nodeCases() []nodeCase {
	ask := "system:\nBe kind.\nuser:\n{{q}}"
	looking := "system:\nLook.\nuser:\nfirst\n\n  {{pic}}\t\n second {{pic}}\n![image]({{pic}})\nImage(x)\nuser:\n{{q}}"
	tools := `[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]`
	functions := `[{"name": "f", "parameters": {"type": "object", "properties": {}}}]`
	q := dict("q", "hello\nuser:\nnot a role")
	bound := func(pairs ...any) *value.Dict { return dict(append([]any{"q", "${inputs.q}"}, pairs...)...) }
	both := []struct {
		api, prompt string
		inputs      *value.Dict
	}{
		{"chat", ask, bound()},
		{"chat", ask, bound("temperature", "0.5", "top_p", int64(1), "max_tokens", "256", "stop", "", "presence_penalty", nil)},
		{"chat", ask, bound("stop", `["a", "b"]`, "max_tokens", int64(7), "frequency_penalty", "-1", "logit_bias", `{"5": 1}`, "user", int64(9))},
		{"chat", ask, bound("seed", "42", "response_format", `{"type": "json_object"}`, "n", "2", "best_of", "x")},
		{"chat", ask, bound("response_format", "json", "stop", []any{}, "seed", int64(0), "presence_penalty", int64(0))},
		{"chat", ask, bound("tools", tools)},
		{"chat", ask, bound("tools", tools, "tool_choice", "none", "functions", functions)},
		{"chat", ask, bound("tools", tools, "tool_choice", `{"type": "function", "function": {"name": "f"}}`)},
		{"chat", ask, bound("tools", tools, "tool_choice", "sometimes")},
		{"chat", ask, bound("tools", tools, "tool_choice", `{"type": "function"}`)},
		{"chat", ask, bound("tools", tools, "tool_choice", `{"type": "function", "function": "f"}`)},
		{"chat", ask, bound("tools", tools, "tool_choice", `{"type": "function", "function": {}}`)},
		{"chat", ask, bound("tools", `[1]`)},
		{"chat", ask, bound("tools", `[{"type": "function"}]`)},
		{"chat", ask, bound("tools", `[{"type": "function", "function": {"name": "f", "parameters": 1}}]`)},
		{"chat", ask, bound("tools", `[]`, "functions", `[]`)},
		{"chat", ask, bound("functions", functions)},
		{"chat", ask, bound("functions", functions, "function_call", `{"name": "f"}`)},
		{"chat", ask, bound("functions", functions, "function_call", `{"nome": "f"}`)},
		{"chat", ask, bound("functions", functions, "function_call", "always")},
		{"chat", ask, bound("functions", `[{"name": "f"}]`)},
		{"chat", ask, bound("functions", `[{"name": "f", "parameters": {"type": "object"}}]`)},
		{"chat", ask, bound("functions", `[{"name": "f", "parameters": {"type": "list", "properties": {}}}]`)},
		{"chat", ask, bound("functions", `[{"name": "f", "parameters": {"type": "object", "properties": []}}]`)},
		{"chat", ask, bound("functions", `["f"]`)},
		{"chat", ask, bound("temperature", "warm")},
		{"chat", ask, bound("stop", "[")},
		{"chat", ask, bound("max_tokens", "1.5")},
		{"chat", ask, bound("stream", "perhaps")},
		{"chat", ask, bound("stream", "False")},
		{"chat", "no role here {{q}}", bound()},
		{"chat", "function:\n{{q}}", bound()},
		{"chat", "assistant:\n## tool_calls:\n[{'id': 'c', 'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}]\ntool:\n## tool_call_id:\nc\n## content:\n{{q}}", bound()},
		{"chat", "user:\n{{temperature}}", bound()},
		{"chat", "user:\n{{prompt}} {{q}}", bound()},
		{"chat", "user:\n{{l}} {{n}} {{b}} {{f}} {{gone}}", dict("l", "${inputs.l}", "n", nil, "b", true, "f", 0.1)},
		{"chat", "", bound()},
		{"completion", "Once {{q}}", bound()},
		{"completion", "Once {{q}}", bound("suffix", "end", "max_tokens", "5", "temperature", "0", "top_p", "0.9", "n", "1", "logprobs", "2", "echo", "true",
			"stop", `["x"]`, "presence_penalty", "1", "frequency_penalty", int64(2), "best_of", "3", "logit_bias", `{"1": -100}`, "user", "u")},
		{"completion", "Once {{q}}", bound("suffix", "", "logprobs", int64(0), "echo", false, "stop", []any{}, "logit_bias", dict())},
		{"completion", "{{suffix}}", bound()},
		{"embedding", ask, bound()},
		{"chat", looking, bound("pic", "${inputs.pic}", "images", "${inputs.pics}")},
		{"chat", looking, bound("pic", "${inputs.pic}", "images", "${inputs.pics}", "image_detail", "low")},
		{"chat", looking, bound("pic", "${inputs.pic}")},
		{"chat", looking, bound("pic", "R0lGODlh", "images", "${inputs.pics}")},
		{"chat", "user:\n![image]({{pic}}) {{ images }} {{image_detail}}", bound("pic", "R0lGODlh", "images", "${inputs.pics}", "image_detail", "high")},
		{"chat", "user:\n![image]({{pic}})", bound("pic", "no picture.png")},
		{"chat", "user:\n![image]({{pic}})", bound("pic", int64(5))},
		{"chat", "user:\n![image]({{ pic }})", bound("pic", "")},
		{"chat", "user:\na\nb", bound("images", []any{"a", "c"})},
		{"chat", "user:\na\nb", bound("images", []any{"c"})},
		{"chat", "user:\n{{q}} {{pics}}", bound("pics", "${inputs.pics}", "images", "${inputs.q}")},
		{"chat", "tool:\n## tool_call_id:\nx\n## content:\n{{pic}}\nuser:\n## name:\nann\n## content:\n\n{{pic}}\n  {{q}}", bound("pic", "${inputs.pic}", "images", "${inputs.pics}")},
		{"completion", "{{images}} ![image]({{pic}})", bound("pic", "R0lGODlh", "images", "${inputs.pics}")},
	}
	var cases []nodeCase
	flow := dict("q", q.Keys()[0], "l", []any{"a", int64(1), nil})
	v, _ := q.Get("q")
	flow.Set("q", v)
	flow.Set("pic", dict("data:image/png;base64", "iVBORw0KGgo="))
	flow.Set("pics", []any{dict("data:image/png;base64", "iVBORw0KGgo="), dict("data:image/*;base64", "R0lGODlh")})
	for _, class := range []string{openAI, azure} {
		for _, b := range both {
			inputs := b.inputs.Clone()
			if class == azure {
				inputs.Set("deployment_name", "my deployment")
			} else {
				inputs.Set("model", "gpt-x")
			}
			cases = append(cases, nodeCase{false, class, b.api, b.prompt, inputs, flow})
		}
	}
	for _, class := range []string{openAI, azure} {
		model := map[string]string{openAI: "model", azure: "deployment_name"}[class]
		for _, inputs := range []*value.Dict{bound(), bound("stream", "no"), bound("tools", tools), bound("tools", tools, "functions", functions), bound("temperature", "warm"), bound("functions", functions)} {
			inputs.Set(model, "m")
			cases = append(cases, nodeCase{true, class, "chat", ask, inputs, flow})
		}
		cases = append(cases, nodeCase{true, class, "completion", "Once {{q}}", bound(model, "m"), flow}, nodeCase{true, class, "chat", ask, bound(), flow})
	}
	return append(cases,
		nodeCase{false, openAI, "chat", ask, bound(), flow},
		nodeCase{false, openAI, "completion", "{{q}}", bound(), flow},
		nodeCase{false, azure, "chat", ask, bound(), flow},
		nodeCase{false, azure, "completion", ask, bound(), flow},
		nodeCase{false, serverless, "chat", ask, bound("model", "llama"), flow},
		nodeCase{false, connection.Custom, "chat", ask, bound(), flow},
		nodeCase{false, "SerpConnection", "chat", ask, bound(), flow},
		nodeCase{false, openAI, "chat", ask, bound("model", ""), flow},
	)
}

// ours runs a case on our parts.
func ours(t *testing.T, c nodeCase, set *connection.Set) (Result, error) {
	loader := &media.Loader{Format: media.Basic, Files: media.Below(t.TempDir())}
	literals, inputs, fromFlow := value.NewDict(), value.NewDict(), []string{}
	for name, v := range c.inputs.All() {
		if s, ok := v.(string); ok && strings.HasPrefix(s, "${inputs.") {
			bound, _ := c.flow.Get(strings.TrimSuffix(strings.TrimPrefix(s, "${inputs."), "}"))
			bound, err := loader.Value(t.Context(), bound)
			must.NoError(t, err)
			inputs.Set(name, bound)
			fromFlow = append(fromFlow, name)
			continue
		}
		literals.Set(name, v)
		inputs.Set(name, v)
	}
	l, err := NewLLM(t.Context(), noJinja{t}, LLMSpec{
		Node: "ask", API: c.api, Connection: "conn", Connections: set, Source: c.prompt, Literals: literals, Image: loader.Image,
		Streams: c.stream,
	})
	if err != nil {
		return Result{}, err
	}
	call := Call{Inputs: inputs, FromFlow: fromFlow}
	if c.stream {
		call.Stream = t.Context()
	}
	result, err := l.Run(t.Context(), noJinja{t}, call)
	if s, ok := result.Output.(*value.Stream); ok {
		items := []any{}
		must.NoError(t, s.Read(t.Context(), func(item any) error {
			items = append(items, item)
			return nil
		}))
		result.Output = items
	}
	return result, err
}

// TestLLM_AsPromptFlow runs llm nodes here and on prompt flow's own executor, against the same endpoint, and compares requests,
// outputs, recorded inputs and errors.
func TestLLM_AsPromptFlow(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	rec := &recording{received: map[string][]openai.Request{}}
	server := httptest.NewServer(rec)
	t.Cleanup(server.Close)
	cases := nodeCases()
	document := make([]any, len(cases))
	for i, c := range cases {
		document[i] = dict("stream", c.stream, "api", c.api, "prompt", c.prompt, "inputs", c.inputs, "flow_inputs", c.flow,
			"connection", entryFor(c.class, fmt.Sprintf("%s/theirs-%d", server.URL, i)))
	}
	for i, answer := range askOracle(t, "nodes.py", document) {
		c, want := cases[i], answer.(*value.Dict)
		where := fmt.Sprintf("case %d: %s %s %q %s: prompt flow gives %s", i, c.class, c.api, c.prompt, value.Encode(c.inputs), value.Encode(want))
		set := connections(t, dict("conn", entryFor(c.class, fmt.Sprintf("%s/ours-%d", server.URL, i))), env)
		got, err := ours(t, c, set)
		checkOutcome(t, where, want, got, err, c.stream)
		if c.inputs.Has("functions") && c.stream {
			continue // there the request is sent before it is refused
		}
		checkRequests(t, where, rec.received[fmt.Sprintf("theirs-%d", i)], rec.received[fmt.Sprintf("ours-%d", i)])
	}
}

func entryFor(class, url string) *value.Dict {
	switch class {
	case connection.Custom:
		return dict("type", class, "module", "promptflow.connections", "value", dict("k", "v"), "secret_keys", []any{"k"})
	case "SerpConnection":
		return dict("type", class, "module", "promptflow.connections", "value", dict("api_key", "k"))
	default:
		return entry(class, url)
	}
}

func checkOutcome(t *testing.T, where string, want *value.Dict, got Result, err error, stream bool) {
	t.Helper()
	if codes, failed := want.Get("codes"); failed {
		must.Error(t, err, must.Sprint(where))
		chain := []any{}
		for _, class := range api.AsError(err).Chain() {
			chain = append(chain, class)
		}
		message, _ := want.Get("message")
		// The class of a quoted text in the flow file shows through in Python; of a plain one it is str.
		message = strings.NewReplacer("ruamel.yaml.scalarstring.DoubleQuotedScalarString", "str", "DoubleQuotedScalarString", "str").Replace(message.(string))
		must.Eq(t, message, any(api.AsError(err).Message), must.Sprint(where))
		must.Eq(t, codes, any(chain), must.Sprint(where))
	} else {
		must.NoError(t, err, must.Sprint(where))
		output, _ := want.Get("output")
		must.Eq(t, string(value.Encode(output)), string(value.Encode(got.Output)), must.Sprint(where))
		must.Eq(t, !stream, got.Usage.Known)
	}
	if inputs, ok := want.Get("inputs"); ok {
		must.Eq(t, string(value.Encode(inputs)), string(value.Encode(got.Inputs)), must.Sprint(where))
	}
}

func checkRequests(t *testing.T, where string, theirs, ours []openai.Request) {
	t.Helper()
	must.Eq(t, len(theirs), len(ours), must.Sprint(where))
	for i := range theirs {
		must.Eq(t, theirs[i].Path, ours[i].Path, must.Sprint(where))
		for _, header := range []string{"Authorization", "Api-Key", "Openai-Organization", "Content-Type", "Accept", "Ms-Azure-Ai-Promptflow-Called-From"} {
			must.Eq(t, theirs[i].Header.Get(header), ours[i].Header.Get(header), must.Sprint(where, header))
		}
		a, err := value.Decode(theirs[i].Body)
		must.NoError(t, err)
		b, err := value.Decode(ours[i].Body)
		must.NoError(t, err)
		must.True(t, value.Equal(a, b), must.Sprintf("%s\ntheirs %s\nours   %s", where, theirs[i].Body, ours[i].Body))
	}
}
