package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// message is a chat message; its content is a text or a list of parts.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text returns the content's text; parts are joined by line feeds.
func (m message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		texts[i] = p.Text
	}
	return strings.Join(texts, "\n")
}

// function is a function or a tool's function.
type function struct {
	Name string `json:"name"`
}

type chatRequest struct {
	Model    string    `json:"model"`
	Stream   bool      `json:"stream"`
	Messages []message `json:"messages"`
	Tools    []struct {
		Function function `json:"function"`
	} `json:"tools"`
	Functions      []function `json:"functions"`
	ResponseFormat struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

func (s *Server) chat(w http.ResponseWriter, body []byte) {
	var r chatRequest
	if err := json.Unmarshal(body, &r); err != nil {
		refuse(w, Failure{Status: http.StatusBadRequest, Message: "We could not parse the JSON body of your request: " + err.Error()})
		return
	}
	if len(r.Messages) == 0 {
		refuse(w, Failure{Status: http.StatusBadRequest, Message: "[] is too short - 'messages'", Type: "invalid_request_error"})
		return
	}
	reply, reason := r.reply()
	if text, ok := mirrored(r.Model, body); ok {
		reply, reason = map[string]any{"role": "assistant", "content": text}, "stop"
	}
	asked := 0
	for _, m := range r.Messages {
		asked += count(m.text())
	}
	said, _ := reply["content"].(string)
	if r.Stream {
		s.streamChat(w, r.Model, said, reason)
		return
	}
	write(w, http.StatusOK, map[string]any{
		"id": "chatcmpl-0", "object": "chat.completion", "created": 1700000000, "model": r.Model,
		"choices": []any{map[string]any{"index": 0, "message": reply, "finish_reason": reason}},
		"usage":   usage(asked, count(said)),
	})
}

// reply calls the first tool or function when there is one, and otherwise says back how many messages it got and the last
// of them; asked for a JSON object it says the last message back as it is.
func (r chatRequest) reply() (map[string]any, string) {
	arguments := `{"messages": ` + fmt.Sprint(len(r.Messages)) + `}`
	if len(r.Tools) > 0 {
		call := map[string]any{"id": "call_0", "type": "function", "function": map[string]any{"name": r.Tools[0].Function.Name, "arguments": arguments}}
		return map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{call}}, "tool_calls"
	}
	if len(r.Functions) > 0 {
		call := map[string]any{"name": r.Functions[0].Name, "arguments": arguments}
		return map[string]any{"role": "assistant", "content": nil, "function_call": call}, "function_call"
	}
	last := r.Messages[len(r.Messages)-1]
	text := fmt.Sprintf("[%d] %s said: %s", len(r.Messages), last.Role, last.text())
	if r.ResponseFormat.Type == "json_object" {
		text = last.text()
	}
	return map[string]any{"role": "assistant", "content": text}, "stop"
}

func (s *Server) complete(w http.ResponseWriter, body []byte) {
	var r struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
		Prompt string `json:"prompt"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		refuse(w, Failure{Status: http.StatusBadRequest, Message: "We could not parse the JSON body of your request: " + err.Error()})
		return
	}
	text := "completed: " + r.Prompt
	if mirror, ok := mirrored(r.Model, body); ok {
		text = mirror
	}
	if r.Stream {
		s.streamText(w, r.Model, text)
		return
	}
	write(w, http.StatusOK, map[string]any{
		"id": "cmpl-0", "object": "text_completion", "created": 1700000000, "model": r.Model,
		"choices": []any{map[string]any{"index": 0, "text": text, "finish_reason": "stop", "logprobs": nil}},
		"usage":   usage(count(r.Prompt), count(text)),
	})
}

// count takes every word for a token.
func count(text string) int { return len(strings.Fields(text)) }

func usage(prompt, completion int) map[string]any {
	return map[string]any{"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
}
