package openai

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// streamChat says a text word by word, as chat models do: a piece with the role first, one without text last.
func (s *Server) streamChat(w http.ResponseWriter, model, text, reason string) {
	deltas := []map[string]any{{"role": "assistant", "content": ""}}
	for _, word := range strings.SplitAfter(text, " ") {
		deltas = append(deltas, map[string]any{"content": word})
	}
	var pieces []any
	for _, delta := range deltas {
		pieces = append(pieces, map[string]any{"index": 0, "delta": delta, "finish_reason": nil})
	}
	pieces = append(pieces, map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": reason})
	s.stream(w, map[string]any{"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1700000000, "model": model}, pieces)
}

// streamText says a completion word by word.
func (s *Server) streamText(w http.ResponseWriter, model, text string) {
	var pieces []any
	for _, word := range strings.SplitAfter(text, " ") {
		pieces = append(pieces, map[string]any{"index": 0, "text": word, "finish_reason": nil, "logprobs": nil})
	}
	s.stream(w, map[string]any{"id": "cmpl-0", "object": "text_completion", "created": 1700000000, "model": model}, pieces)
}

// stream sends choices one by one as server-sent events, after a first event without any, as Azure OpenAI does.
func (s *Server) stream(w http.ResponseWriter, head map[string]any, choices []any) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flush := http.NewResponseController(w)
	send := func(choices []any) {
		head["choices"] = choices
		data, _ := json.Marshal(head) // plain maps
		_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
		_ = flush.Flush()
	}
	send([]any{})
	for i, choice := range choices {
		if s.BeforePiece != nil && !s.BeforePiece(i) {
			panic(http.ErrAbortHandler)
		}
		send([]any{choice})
	}
	_, _ = fmt.Fprint(w, "data: [DONE]\n\n")
	_ = flush.Flush()
}
