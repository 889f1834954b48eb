package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// asking is an llm node that streams from an endpoint.
func asking(t *testing.T, url, kind string) *LLM {
	t.Helper()
	set := connections(t, dict("conn", entry(openAI, url)), env)
	l, err := NewLLM(t.Context(), noJinja{t}, LLMSpec{
		Node: "ask", API: kind, Connection: "conn", Connections: set, Source: "user:\nhi", Literals: dict("model", "m", "stream", true), Streams: true,
	})
	must.NoError(t, err)
	return l
}

func stream(t *testing.T, ctx context.Context, l *LLM) (*value.Stream, Result) {
	t.Helper()
	result, err := l.Run(t.Context(), noJinja{t}, Call{Inputs: dict("model", "m", "stream", true), Stream: ctx})
	must.NoError(t, err)
	return result.Output.(*value.Stream), result
}

func collect(ctx context.Context, s *value.Stream) (items []any, err error) {
	err = s.Read(ctx, func(item any) error {
		items = append(items, item)
		return nil
	})
	return items, err
}

func TestStream_piecesComeAsTheModelSaysThem(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	gate := make(chan struct{})
	server.BeforePiece = func(int) bool {
		select {
		case <-gate:
			return true
		case <-time.After(10 * time.Second):
			return false
		}
	}
	s, _ := stream(t, t.Context(), asking(t, url, "chat")) // it has begun before there is a piece
	pieces := 0
	go func() { gate <- struct{}{} }()
	must.NoError(t, s.Read(t.Context(), func(any) error {
		pieces++
		go func() { gate <- struct{}{} }() // the next one is not said before this one was heard
		return nil
	}))
	test.Eq(t, 6, pieces)
	items, err := collect(t.Context(), s)
	must.NoError(t, err)
	test.SliceEmpty(t, items)
}

func TestStream_withoutBeingAskedAnswersAtOnce(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	result, err := asking(t, url, "chat").Run(t.Context(), noJinja{t}, Call{Inputs: dict("model", "m", "stream", true)})
	must.NoError(t, err)
	test.Eq(t, any("[1] user said: hi"), result.Output)
	test.StrContains(t, string(server.Requests()[0].Body), `"stream":false`)
}

func TestStream_retriesBeforeTheAnswerBegins(t *testing.T) {
	t.Parallel()
	server, url := openai.Start(t)
	server.Fail(openai.Failure{Status: 429, Message: "slow down"}, openai.Failure{Hangup: true})
	l := asking(t, url, "completion")
	l.client = (&clock{}).client()
	s, result := stream(t, t.Context(), l)
	items, err := collect(t.Context(), s)
	must.NoError(t, err)
	test.Eq(t, []any{"completed: ", "user:\nhi"}, items)
	test.StrContains(t, result.Stderr, "RateLimitError #0")
	test.SliceLen(t, 3, server.Requests())
	server.Fail(openai.Failure{Status: 400, Message: "no"})
	_, err = l.Run(t.Context(), noJinja{t}, Call{Inputs: dict("model", "m"), Stream: t.Context()})
	test.Eq(t, []string{"UserError", "OpenAIError", "BadRequestError"}, api.AsError(err).Chain())
}

func TestStream_endsWithItsReaderAndItsLife(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 3)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	t.Cleanup(server.Close)
	l := asking(t, server.URL, "chat")

	s, _ := stream(t, t.Context(), l)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Read(ctx, func(any) error { cancel(); return nil })
	test.Eq(t, "ToolCanceledError", api.AsError(err).Class())
	<-gone

	s, _ = stream(t, t.Context(), l)
	enough := errors.New("enough")
	test.ErrorIs(t, s.Read(t.Context(), func(any) error { return enough }), enough)
	<-gone

	life, end := context.WithCancel(t.Context())
	_, _ = stream(t, life, l) // never read
	end()
	<-gone
}

func TestStream_brokenAnswers(t *testing.T) {
	t.Parallel()
	chunk := func(content string) string {
		return fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", content)
	}
	cases := []struct{ name, body, items, class, says string }{
		{"comments and other fields", ": hi\n\nevent: x\nid: 5\n" + chunk("a") + "data: [DONE]\n\n" + chunk("b"), `["a"]`, "", ""},
		{"carriage returns", strings.ReplaceAll(chunk("a")+"data: [DONE]\n\n", "\n", "\r\n"), `["a"]`, "", ""},
		{"several lines of data", "data: {\"choices\":\ndata: [{\"delta\":{\"content\":\"a\"}}]}\n\n", `["a"]`, "", ""},
		{"no end marker", chunk("a"), `["a"]`, "", ""},
		{"nothing", "", `[]`, "", ""},
		{"no text", "data: {\"choices\":[{\"delta\":{\"content\":null}}]}\n\ndata: {\"choices\":[{}]}\n\ndata: {\"choices\":[5]}\n\ndata: {\"choices\":5}\n\ndata: {}\n\n", `["","",""]`, "", ""},
		{"an error", chunk("a") + "data: {\"error\":{\"message\":\"overloaded\"}}\n\n", `["a"]`, "APIError", "overloaded"},
		{"an error without a message", "data: {\"error\":\"x\"}\n\n", `[]`, "APIError", "An error occurred during streaming"},
		{"no JSON", chunk("a") + "data: {\n\n", `["a"]`, "LLMError", "is no JSON"},
		{"no object", "data: [1]\n\n", `[]`, "LLMError", "'list' object has no attribute 'choices'"},
		{"broken off", chunk("a") + "BREAK", `["a"]`, "APIConnectionError", "broke off"},
		{"too much", chunk(strings.Repeat("x", maxEvent)), `[]`, "LLMError", "more than 8 MiB"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				body, broken := strings.CutSuffix(tc.body, "BREAK")
				_, _ = io.WriteString(w, body)
				if broken {
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
			}))
			t.Cleanup(server.Close)
			s, _ := stream(t, t.Context(), asking(t, server.URL, "chat"))
			items, err := collect(t.Context(), s)
			test.Eq(t, tc.items, string(value.Encode(append([]any{}, items...))))
			if tc.class == "" {
				test.NoError(t, err)
				return
			}
			test.Eq(t, tc.class, api.AsError(err).Class())
			test.ErrorContains(t, err, tc.says)
		})
	}
}

func TestStream_countsTokensThatTheEndpointReports(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7}}\n\ndata: [DONE]\n\n")
	}))
	t.Cleanup(server.Close)
	s, result := stream(t, t.Context(), asking(t, server.URL, "chat"))
	test.False(t, result.Streamed().Known)
	_, err := collect(t.Context(), s)
	must.NoError(t, err)
	test.Eq(t, Usage{Known: true, PromptTokens: 3, CompletionTokens: 4, TotalTokens: 7}, result.Streamed())
}

func FuzzStreamEvents(f *testing.F) {
	f.Add("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n")
	f.Add("data: {\"error\":{\"message\":1}}\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		o := &opened{response: &http.Response{Body: io.NopCloser(strings.NewReader(text))}, cancel: func() {}, idle: time.NewTimer(time.Hour)}
		s := &said{llm: &LLM{api: apiChat}, opened: o}
		_ = s.read(t.Context(), func(item any) error {
			_ = value.Encode(item)
			return nil
		})
	})
}
