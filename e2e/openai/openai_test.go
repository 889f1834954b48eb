package openai

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoenig/test/must"
)

func post(t *testing.T, url, path, key, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	must.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	must.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	must.NoError(t, err)
	return resp.StatusCode, string(data)
}

func TestServer_Answers(t *testing.T) {
	t.Parallel()
	_, url := Start(t)
	ask := `{"model": "m", "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello there"}]`
	cases := []struct {
		name, path, key, body string
		status                int
		want                  string
	}{
		{"chat", "/v1/chat/completions", Key, ask + `}`, 200, `[2] user said: hello there`},
		{"azure chat", "/openai/deployments/d/chat/completions?api-version=1", Key, ask + `}`, 200, `[2] user said: hello there`},
		{"azure without version", "/openai/deployments/d/chat/completions", Key, ask + `}`, 404, `Resource not found`},
		{"usage", "/v1/chat/completions", Key, ask + `}`, 200, `"total_tokens":9`},
		{"tools", "/v1/chat/completions", Key, ask + `, "tools": [{"type": "function", "function": {"name": "f"}}]}`, 200, `"name":"f"`},
		{"functions", "/v1/chat/completions", Key, ask + `, "functions": [{"name": "g"}]}`, 200, `"function_call":{`},
		{"completion", "/v1/completions", Key, `{"model": "m", "prompt": "once upon"}`, 200, `completed: once upon`},
		{"mirror", "/v1/chat/completions", Key, `{"n": 1.0, "model": "mirror", "messages": [{"role": "user", "content": "x"}]}`, 200, `{\"messages\":[{\"content\":\"x\",\"role\":\"user\"}],\"model\":\"mirror\",\"n\":1.0}`},
		{"mirror of a completion", "/v1/completions", Key, `{"model": "mirror", "prompt": "x"}`, 200, `{\"model\":\"mirror\",\"prompt\":\"x\"}`},
		{"failing model", "/v1/completions", Key, `{"model": "fail-404", "prompt": "x"}`, 404, `The model fail-404 fails.`},
		{"embedding", "/v1/embeddings", Key, `{"model": "e", "input": "a b"}`, 200, `"total_tokens":2`},
		{"embeddings", "/openai/deployments/d/embeddings?api-version=1", Key, `{"model": "e", "input": ["a", "b"]}`, 200, `"index":1`},
		{"embedding of nothing", "/v1/embeddings", Key, `{"model": "e", "input": 3}`, 400, `must be a text`},
		{"wrong key", "/v1/completions", "other", `{}`, 401, `Incorrect API key provided.`},
		{"unknown path", "/v2/completions", Key, `{}`, 404, `Invalid URL`},
		{"no JSON", "/v1/chat/completions", Key, `{`, 400, `could not parse the JSON body`},
		{"no messages", "/v1/chat/completions", Key, `{}`, 400, `is too short`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t, url, c.path, c.key, c.body)
			must.Eq(t, c.status, status)
			must.StrContains(t, body, c.want)
		})
	}
}

func TestServer_FailsOnDemandThenAnswers(t *testing.T) {
	t.Parallel()
	s, url := Start(t)
	s.Fail(Failure{Status: 429, Message: "slow down", Type: "requests"})
	status, body := post(t, url, "/v1/completions", Key, `{"prompt": "x"}`)
	must.Eq(t, 429, status)
	must.StrContains(t, body, "slow down")
	status, _ = post(t, url, "/v1/completions", Key, `{"prompt": "x"}`)
	must.Eq(t, 200, status)
	must.SliceLen(t, 2, s.Requests())
	must.Eq(t, `{"prompt": "x"}`, string(s.Requests()[0].Body))
}
