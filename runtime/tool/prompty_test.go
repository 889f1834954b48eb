package tool

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// cardSpec reads a prompty file with the model m at url, known as the connection conn.
func cardSpec(t *testing.T, front, url string) PromptySpec {
	t.Helper()
	dir := fstest.MapFS{
		"sub/a.prompty": {Data: []byte("---\n" + front + "\n---\nuser:\n{{text}}\n")},
		"sub/list.json": {Data: []byte(`[1, {"a": NaN}]`)}, "sub/model.yml": {Data: []byte("x: 010\n")}, "sub/text.md": {Data: []byte("a\r\nb")}, "sub/bad.json": {Data: []byte("{")},
		"up.txt": {Data: []byte("up")},
	}
	f, err := flow.LoadWith(dir, flow.Options{File: "sub/a.prompty"})
	must.NoError(t, err)
	lookup := func(name string) (string, bool) {
		v, ok := map[string]string{"SET": "value", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url + "/v1"}[name]
		return v, ok
	}
	return PromptySpec{
		Config: f.Card.Config, Template: f.Card.Template, Dir: dir, File: f.File, Env: lookup,
		Connections: connections(t, dict("conn", entry(openAI, url), "az", entry(azure, url), "less", entry(serverless, url)), lookup),
	}
}

const model = "model: {configuration: {type: openai, model: m, connection: conn}, parameters: {}}"

func TestNewPrompty_leavesWhatIsNotTheSameHere(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ front, why string }{
		"no model":            {"name: x", "its model is not an object"},
		"a key":               {"model: {configuration: {}, parameters: {}, apii: chat}", "its model has the key apii"},
		"no parameters":       {"model: {configuration: {model: m, connection: conn}}", "its parameters are not an object"},
		"no configuration":    {"model: {parameters: {}}", "its configuration is not an object"},
		"an api":              {"model: {api: embedding, configuration: {model: m, connection: conn}, parameters: {}}", "its api is none of chat and completion"},
		"a whole response":    {"model: {configuration: {model: m, connection: conn}, parameters: {}, response: all}", "it asks for the whole response"},
		"a stream":            {"model: {configuration: {model: m, connection: conn}, parameters: {stream: true}}", "it streams"},
		"a parameter":         {"model: {configuration: {model: m, connection: conn}, parameters: {extra_body: {}}}", "it has the parameter extra_body"},
		"a chat's parameter":  {"model: {api: completion, configuration: {model: m, connection: conn}, parameters: {tools: []}}", "it has the parameter tools"},
		"what has no JSON":    {"model: {configuration: {model: m, connection: conn}, parameters: {top_p: .nan}}", "its parameters cannot be sent"},
		"empty tools":         {"model: {configuration: {model: m, connection: conn}, parameters: {tools: []}}", "its tool_choice is wrong"},
		"a wrong tool choice": {"model: {configuration: {model: m, connection: conn}, parameters: {tools: [{type: function, function: {name: f, parameters: {type: object, properties: {}}}}], tool_choice: 5}}", "its tool_choice is wrong"},
		"no model's name":     {"model: {configuration: {connection: conn}, parameters: {}}", "its model has no name"},
		"an unknown name":     {"model: {configuration: {model: m, connection: gone}, parameters: {}}", "its connection gone is not known"},
		"another class":       {"model: {configuration: {model: m, connection: less}, parameters: {}}", "of class ServerlessConnection"},
		"two connections":     {"model: {configuration: {model: m, connection: conn, api_key: k}, parameters: {}}", "its configuration is wrong"},
		"a type":              {"model: {configuration: {type: mistral, model: m}, parameters: {}}", "has the type 'mistral'"},
		"no key":              {"model: {configuration: {type: openai, model: m, base_url: http://x}, parameters: {}}", "its configuration has no api_key"},
		"a setting":           {"model: {configuration: {type: openai, model: m, api_key: k, timeout: x}, parameters: {}}", "its configuration has the key timeout"},
		"a variable not set":  {"model: {configuration: {type: openai, model: m, api_key: '${env:NOT_SET}'}, parameters: {}}", "its configuration has the api_key '${env:NOT_SET}'"},
		"azure, nothing set":  {"model: {configuration: {type: azure_openai, azure_deployment: d}, parameters: {}}", "its configuration has no api_key"},
		"azure, no endpoint":  {"model: {configuration: {type: azure_openai, azure_deployment: d, api_key: k}, parameters: {}}", "its endpoint is not known"},
		"a file not there":    {"model: ${file:nowhere.yaml}", "it refers to nowhere.yaml"},
		"a file outside":      {"model: ${file:../../up.txt}", "it refers to ../../up.txt"},
		"an absolute file":    {"model: ${file:/etc/passwd}", "it refers to /etc/passwd"},
		"a broken file":       {"model: ${file:bad.json}", "it refers to bad.json"},
		"an input timeout":    {model + "\ninputs: {timeout: {type: int}}", "its input timeout is one of the request too"},
		"a sample file":       {model + "\nsample: file:sample.json", "its sample is not an object"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := NewPrompty(cardSpec(t, tc.front, "http://127.0.0.1:1"))
			var left *notHere
			must.True(t, errors.As(err, &left), must.Sprint(err))
			test.StrContains(t, left.Error(), tc.why)
		})
	}
	t.Run("more overridden than the model", func(t *testing.T) {
		t.Parallel()
		s := cardSpec(t, model, "http://127.0.0.1:1")
		s.Overrides = dict("name", "x")
		_, err := NewPrompty(s)
		must.ErrorContains(t, err, "more than its model is overridden")
	})
	t.Run("tracing", func(t *testing.T) {
		t.Parallel()
		s := cardSpec(t, model, "http://127.0.0.1:1")
		env := s.Env
		s.Env = func(name string) (string, bool) {
			if name == "PF_DISABLE_TRACING" {
				return "false", true
			}
			return env(name)
		}
		_, err := NewPrompty(s)
		must.ErrorContains(t, err, "tracing is switched on")
	})
}

func TestReferences(t *testing.T) {
	t.Parallel()
	s := cardSpec(t, model, "")
	r := references{dir: s.Dir, base: "sub", env: s.Env}
	for text, want := range map[string]string{
		"plain": `"plain"`, "${env:SET}": `"value"`, "${env:SET} and more": `"value"`, "x ${env:SET}": `"x ${env:SET}"`, "${env:NOT}": `"${env:NOT}"`, "${other:x}": `"${other:x}"`,
		"${file:list.json}": `[1,{"a":NaN}]`, "${file:./model.yml}": `{"x":10}`, "${file:text.md}": `"a\nb"`, "${file:../up.txt}": `"up"`, "${env:SET": `"${env:SET"`,
	} {
		got, err := r.follow(text)
		must.NoError(t, err, must.Sprint(text))
		test.Eq(t, want, string(value.Encode(got)), test.Sprint(text))
	}
	deep, err := r.follow(dict("a", []any{"${env:SET}", int64(1), dict("b", "${env:SET}")}))
	must.NoError(t, err)
	test.Eq(t, `{"a":["value",1,{"b":"value"}]}`, string(value.Encode(deep)))
}

func TestUpdated(t *testing.T) {
	t.Parallel()
	got, err := updated(dict("a", int64(1), "b", dict("x", int64(1), "y", int64(2)), "c", nil), dict("b", dict("y", int64(3)), "d", dict("e", "f")))
	must.NoError(t, err)
	test.Eq(t, `{"b":{"y":3,"x":1},"d":{"e":"f"},"a":1,"c":null}`, string(value.Encode(got)))
	_, err = updated(dict("a", int64(1)), dict("a", dict("b", "c")))
	test.ErrorContains(t, err, "an object overrides what is none")
}

func TestWithoutDecorators(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"![image]({{x}})": "\n{{x}}\n", "a ![ image ]({{ x }}) b": "a \n{{ x }}\n b", "![image]({{x}})![image]({{y}})": "\n{{x}}\n\n{{y}}\n",
		"![picture]({{x}})": "![picture]({{x}})", "![image]({{x | f}})": "![image]({{x | f}})", "![image](x)": "![image](x)",
	} {
		test.Eq(t, want, withoutDecorators(text), test.Sprint(text))
	}
}

func TestPrompty_RetriesLessOftenThanNodes(t *testing.T) {
	t.Parallel()
	endpoint, url := openai.Start(t)
	s := cardSpec(t, model+"\ninputs: {text: {type: string}}", url)
	c := &clock{}
	s.Client = c.client()
	p, err := NewPrompty(s)
	must.NoError(t, err)
	endpoint.Fail(repeat(11, openai.Failure{Status: 503, Message: "down"})...)
	result, err := p.Run(t.Context(), noJinja{t}, dict("text", "hi"))
	e := api.AsError(err)
	test.Eq(t, []string{"UserError", "ScriptExecutionError"}, e.Chain())
	test.StrHasPrefix(t, "Execution failure in '_traced_sync.<locals>.wrapped': (ExceedMaxRetryTimes) Exceed max retry times. OpenAI API hits InternalServerError:", e.Message)
	test.SliceLen(t, 11, endpoint.Requests())
	test.Eq(t, []time.Duration{3, 4, 6, 10, 18, 34, 60, 60, 60, 60}, slices.Collect(func(yield func(time.Duration) bool) {
		for _, w := range c.waits {
			if !yield(w / time.Second) {
				return
			}
		}
	}))
	test.Eq(t, 11, strings.Count(result.Stderr, "Exception occurs: InternalServerError"))
}

func TestPrompty_LeavesImagesAndToolCalls(t *testing.T) {
	t.Parallel()
	endpoint, url := openai.Start(t)
	p, err := NewPrompty(cardSpec(t, model+"\ninputs: {text: {type: string}}", url))
	must.NoError(t, err)
	for _, text := range []string{"data:image/png;path: a.png", "data:image/png;base64:x", "x tool_calls y"} {
		_, err := p.Run(t.Context(), noJinja{t}, dict("text", text))
		test.ErrorIs(t, err, ErrLeft, test.Sprint(text))
	}
	test.SliceEmpty(t, endpoint.Requests())
	result, err := p.Run(t.Context(), noJinja{t}, dict("text", "data:image/png; path a.png"))
	must.NoError(t, err)
	test.Eq[any](t, "[1] user said: data:image/png; path a.png", result.Value)
	test.True(t, result.Usage.Known)
}

func TestPrompty_TakesOutputsFromAnObject(t *testing.T) {
	t.Parallel()
	_, url := openai.Start(t)
	p, err := NewPrompty(cardSpec(t, "model: {configuration: {model: m, connection: conn}, parameters: {response_format: {type: json_object}}}\ninputs: {text: {type: string}}\noutputs: {b: {type: int}, a: {type: int}}", url))
	must.NoError(t, err)
	for text, want := range map[string]string{
		`{"a": 1, "b": NaN, "c": 2}`: `{"b":NaN,"a":1}`,
		`{"a": 1}`:                   "(InvalidOutputKeyError) Cannot find b in response ['a']",
		`[1]`:                        "(LLMError) OpenAI API hits exception: AttributeError: 'list' object has no attribute 'keys'",
		`["b"]`:                      "(LLMError) OpenAI API hits exception: TypeError: list indices must be integers or slices, not str",
		`"xbx"`:                      "(LLMError) OpenAI API hits exception: TypeError: string indices must be integers, not 'str'",
		`5`:                          "(LLMError) OpenAI API hits exception: TypeError: argument of type 'int' is not iterable",
		`{`:                          "(LLMError) OpenAI API hits exception: JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
	} {
		result, err := p.Run(t.Context(), noJinja{t}, dict("text", text))
		if strings.HasPrefix(want, "{") {
			must.NoError(t, err, must.Sprint(text))
			test.Eq(t, want, string(value.Encode(result.Value)))
			continue
		}
		test.StrHasSuffix(t, want, api.AsError(err).Message, test.Sprint(text))
	}
}

func TestExplainInCore_AsPromptFlow(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	texts := []string{
		"plain", "<empty message>", "Unrecognized request argument supplied: functions", "The completion operation does not work with the specified model",
		"logprobs parameters are not available", "Invalid content type. image_url is only supported by certain models",
		"'response_format' of type 'x' is not supported with this model.", "Additional properties are not allowed ('a', 'response_format' was unexpected) - 'response_format'",
		"Principal does not have access to API/Operation", "messages with role 'tool' must be a response", "'tool_calls' must be followed by tool messages responding to each 'tool_call_id'",
	}
	document := make([]any, len(texts))
	for i, text := range texts {
		document[i] = []any{"core_error", text}
	}
	for i, answer := range askOracle(t, "oracle.py", document) {
		compare(t, texts[i], answer, "OpenAI API hits RuntimeError: "+explainInCore(texts[i]), nil)
	}
}
