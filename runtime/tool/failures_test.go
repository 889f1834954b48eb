package tool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// clock is a Client's time: waiting costs nothing and is written down.
type clock struct {
	now   time.Time
	waits []time.Duration
	err   error // what a wait ends with
}

func (c *clock) client() *Client {
	return &Client{
		Now: func() time.Time { return c.now },
		Wait: func(_ context.Context, d time.Duration) error {
			c.waits = append(c.waits, d)
			c.now = c.now.Add(d)
			return c.err
		},
	}
}

// runAgainst runs a chat node against an endpoint.
func runAgainst(t *testing.T, ctx context.Context, url string, client *Client) (Result, error) {
	t.Helper()
	set := connections(t, dict("conn", entry(openAI, url)), env)
	l, err := NewLLM(ctx, noJinja{t}, LLMSpec{
		Node: "ask", API: "chat", Connection: "conn", Connections: set, Source: "user:\nhi", Literals: dict("model", "m"), Client: client,
	})
	must.NoError(t, err)
	return l.Run(ctx, noJinja{t}, Call{Inputs: dict("model", "m")})
}

func repeat(n int, f openai.Failure) []openai.Failure {
	list := make([]openai.Failure, n)
	for i := range list {
		list[i] = f
	}
	return list
}

func TestLLM_RetriesWithBackoff(t *testing.T) {
	t.Parallel()
	busy := openai.Failure{Status: 429, Message: "slow down"}
	unprocessable := openai.Failure{Status: 422, Message: "odd"}
	after := func(s string) openai.Failure {
		return openai.Failure{Status: 503, Message: "later", Header: map[string]string{"Retry-After": s}}
	}
	begin := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	s := time.Second
	cases := []struct {
		name     string
		failures []openai.Failure
		waits    []time.Duration
		err      string
	}{
		{"none", nil, nil, ""},
		{"growing to a minute", repeat(8, busy), []time.Duration{3 * s, 4 * s, 6 * s, 10 * s, 18 * s, 34 * s, 60 * s, 60 * s}, ""},
		{"as told in seconds", []openai.Failure{after("7"), after("0.5"), after("0")}, []time.Duration{7 * s, s / 2, 0}, ""},
		{"as told by a date", []openai.Failure{after(begin.Add(9 * s).Format(http.TimeFormat))}, []time.Duration{9 * s}, ""},
		{"told nonsense", []openai.Failure{after("soon"), after("-5")}, []time.Duration{3 * s, 0}, ""},
		{"hang-ups", repeat(2, openai.Failure{Hangup: true}), []time.Duration{3 * s, 4 * s}, ""},
		{"three 422 in a row", repeat(5, unprocessable), []time.Duration{3 * s, 4 * s},
			"Exceed max retry times. OpenAI API hits UnprocessableEntityError: Error code: 422 - odd"},
		{"422 with others between", []openai.Failure{unprocessable, unprocessable, busy, unprocessable, unprocessable},
			[]time.Duration{3 * s, 4 * s, 6 * s, 10 * s, 18 * s}, ""},
		{"no quota", []openai.Failure{{Status: 429, Message: "pay", Type: "insufficient_quota"}}, nil, "OpenAI API hits RateLimitError: Error code: 429 - pay"},
		{"bad request", []openai.Failure{{Status: 400, Message: "no"}}, nil, "OpenAI API hits BadRequestError: Error code: 400 - no [Error reference"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, url := openai.Start(t)
			server.Fail(c.failures...)
			clock := &clock{now: begin}
			result, err := runAgainst(t, t.Context(), url, clock.client())
			must.Eq(t, c.waits, clock.waits)
			must.StrContains(t, string(result.APICalls), `"name":"OpenAI.chat"`)
			if c.err != "" {
				must.ErrorContains(t, err, c.err)
				must.Eq(t, "OpenAIError", api.AsError(err).Chain()[1])
				must.StrContains(t, result.Stderr, "Exception occurs: ")
				return
			}
			must.NoError(t, err)
			must.Eq(t, any("[1] user said: hi"), result.Output)
			must.Eq(t, Usage{Known: true, PromptTokens: 1, CompletionTokens: 4, TotalTokens: 5}, result.Usage)
			must.Eq(t, len(c.waits), strings.Count(result.Stderr, "Back off"))
		})
	}
}

func TestLLM_GivesUpAfterAHundredRetries(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	server.Fail(repeat(200, openai.Failure{Status: 500, Message: "x"})...)
	clock := &clock{}
	_, err := runAgainst(t, t.Context(), url, clock.client())
	must.ErrorContains(t, err, "Exceed max retry times. OpenAI API hits InternalServerError: Error code: 500 - x")
	must.SliceLen(t, 100, clock.waits)
	must.SliceLen(t, 101, server.Requests())
}

func TestLLM_StopsWithItsContext(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	server.Fail(repeat(3, openai.Failure{Status: 500})...)
	ctx, cancel := context.WithCancel(t.Context())
	client := &Client{Wait: func(ctx context.Context, _ time.Duration) error {
		cancel()
		return context.Cause(ctx)
	}}
	_, err := runAgainst(t, ctx, url, client)
	must.Eq(t, "ToolCanceledError", api.AsError(err).Class())
	must.SliceLen(t, 1, server.Requests())

	blocked := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-blocked }))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(blocked) })
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = runAgainst(t, ctx, hang.URL, nil)
	must.ErrorContains(t, err, "Tool execution is canceled because: Timeout.")
}

func TestLLM_NamesAnUnreachableEndpoint(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must.NoError(t, err)
	address := listener.Addr().String()
	must.NoError(t, listener.Close())
	clock := &clock{}
	_, err = runAgainst(t, t.Context(), "http://user:hunter22@"+address, clock.client())
	must.SliceEmpty(t, clock.waits)
	must.Eq(t, []string{"UserError", "OpenAIError", "APIConnectionError"}, api.AsError(err).Chain())
	for _, part := range []string{
		"OpenAI API hits APIConnectionError: Connection error. [Error reference: https://platform.openai.com/docs/guides/error-codes/api-errors]",
		"http://user:xxxxx@" + address + "/v1/chat/completions", "connection 'conn'", "connection refused", "set the connection's base_url",
	} {
		must.ErrorContains(t, err, part)
	}
	must.StrNotContains(t, err.Error(), "hunter22")
	must.StrNotContains(t, err.Error(), openai.Key)
}

func TestLLM_SaysWhatAnEndpointAnsweredBadly(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, answer, want string }{
		{"no JSON", "<html>", "with no JSON but"},
		{"no object", "[]", "'list' object has no attribute 'choices'"},
		{"no choices", `{"object": "x"}`, "the answer has no list of choices"},
		{"empty choices", `{"choices": []}`, "the answer has no choices"},
		{"no message", `{"choices": [{}]}`, "has no attribute 'content'"},
		{"a choice that is none", `{"choices": [1]}`, "has no attribute 'message'"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, err := w.Write([]byte(c.answer))
				must.NoError(t, err)
			}))
			t.Cleanup(server.Close)
			_, err := runAgainst(t, t.Context(), server.URL, nil)
			must.ErrorContains(t, err, c.want)
			must.Eq(t, []string{"UserError", "LLMError"}, api.AsError(err).Chain())
		})
	}
}

func TestLLM_KeepsItsKey(t *testing.T) {
	t.Parallel()
	other, otherURL := openai.Start(t)
	redirecting := httptest.NewServer(http.RedirectHandler(otherURL+"/v1/chat/completions", http.StatusTemporaryRedirect))
	t.Cleanup(redirecting.Close)
	_, err := runAgainst(t, t.Context(), redirecting.URL, nil)
	must.ErrorContains(t, err, "redirect to another host")
	must.SliceEmpty(t, other.Requests())

	server, url := openai.Start(t)
	server.Fail(openai.Failure{Status: 401, Message: "Incorrect API key provided: " + openai.Key + "."})
	result, err := runAgainst(t, t.Context(), url, nil)
	must.ErrorContains(t, err, "Incorrect API key provided: **data_scrubbed**.")
	must.StrNotContains(t, result.Stderr+string(result.APICalls), openai.Key)
}

// TestLLM_FailuresAsPromptFlow compares what failing endpoints lead to, here and in prompt flow.
func TestLLM_FailuresAsPromptFlow(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	now := map[string]string{"Retry-After": "0"}
	failures := []openai.Failure{
		{Status: 400, Message: "no"}, {Status: 401, Message: "who"}, {Status: 403, Message: "Principal does not have access to API/Operation."},
		{Status: 404, Message: "The API deployment for this resource does not exist."}, {Status: 409, Message: "c"}, {Status: 418, Message: "tea"}, {Status: 400},
		{Status: 429, Message: "pay", Type: "insufficient_quota"}, {Status: 422, Message: "odd", Header: now},
		{Status: 400, Message: "Unrecognized request argument supplied: functions"}, {Status: 400, Message: "logprobs, echo and such parameters are not available"},
		{Status: 400, Message: "The completion operation does not work with the specified model, m."},
		{Status: 400, Message: "Invalid content type. image_url is only supported by certain models."},
		{Status: 400, Message: "Invalid parameter: 'response_format' of type 'json_object' is not supported with this model."},
		{Status: 400, Message: "Additional properties are not allowed ('response_format' was unexpected) - 'response_format'"},
		{Status: 400, Message: "messages with role 'tool' must be a response to another."},
	}
	theirs, mine := make([]string, len(failures)), make([]string, len(failures))
	document := make([]any, len(failures))
	for i, f := range failures {
		for _, url := range []*string{&theirs[i], &mine[i]} {
			server, u := openai.Start(t)
			server.Fail(repeat(5, f)...)
			*url = u
		}
		document[i] = dict("api", "chat", "prompt", "user:\nhi", "inputs", dict("model", "m"), "flow_inputs", value.NewDict(), "connection", entry(openAI, theirs[i]))
	}
	for i, answer := range askOracle(t, "nodes.py", document) {
		result, err := runAgainst(t, t.Context(), mine[i], (&clock{}).client())
		checkOutcome(t, fmt.Sprintf("%+v", failures[i]), answer.(*value.Dict), result, err, false)
	}
}

func TestNewLLM_Refuses(t *testing.T) {
	t.Parallel()
	url := "http://127.0.0.1:1"
	noKey := dict("type", openAI, "value", dict("base_url", url))
	token := dict("type", azure, "value", dict("api_base", url, "auth_mode", "meid_token"))
	noURL := dict("type", azure, "value", dict("api_base", "my-resource", "api_key", "k"))
	set := connections(t, dict("conn", entry(openAI, url), "no key", noKey, "token", token, "no url", noURL), env)
	cases := []struct {
		name, connection, source string
		literals                 *value.Dict
		want                     string
	}{
		{"unknown connection", "other", "", nil, "Tool load failed in 'ask': (GetConnectionError) Get connection 'other' for node 'ask' error: Connection 'other' not found"},
		{"no key", "no key", "", nil, "Connection 'no key' has no api_key"},
		{"token sign-in", "token", "", nil, "Microsoft Entra sign-in is not supported yet"},
		{"no URL", "no url", "", nil, "is no http or https URL"},
		{"name of a parameter", "conn", "user:\n", dict("trim_blocks", true), "rename the input"},
		{"connection as input", "conn", "user:\n", dict("connection", "x"), "name the connection as the node's connection"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewLLM(t.Context(), noJinja{t}, LLMSpec{Node: "ask", API: "chat", Connection: c.connection, Connections: set, Source: c.source, Literals: c.literals})
			must.ErrorContains(t, err, c.want)
			must.StrHasPrefix(t, "Tool load failed in 'ask': (", err.Error())
		})
	}
}

func TestLLM_RefusesToStreamIntoOtherNodes(t *testing.T) {
	t.Parallel()
	set := connections(t, dict("conn", entry(openAI, "http://127.0.0.1:1")), env)
	for _, kind := range []string{"chat", "completion"} {
		l, err := NewLLM(t.Context(), noJinja{t}, LLMSpec{Node: "ask", API: kind, Connection: "conn", Connections: set, Source: "user:\n", Literals: dict("stream", "true")})
		must.NoError(t, err)
		_, err = l.Run(t.Context(), noJinja{t}, Call{Inputs: dict("stream", "true")})
		must.ErrorContains(t, err, "other nodes use the output of this node")
	}
}

func TestCanceled_KeepsOtherErrors(t *testing.T) {
	t.Parallel()
	other := errors.New("other")
	must.ErrorIs(t, canceled(t.Context(), other), other)
	must.NoError(t, canceled(t.Context(), nil))
}
