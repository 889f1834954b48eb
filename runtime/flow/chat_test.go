package flow

import (
	"testing"
	"testing/fstest"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestChat(t *testing.T) {
	t.Parallel()
	const (
		question = "  q: {type: string, is_chat_input: true}\n"
		history  = "  chat_history: {type: list}\n"
		answer   = "  a: {type: string, reference: \"${inputs.q}\", is_chat_output: true}\n"
		other    = "  o: {type: string, reference: \"${inputs.q}\"}\n"
	)
	cases := []struct {
		name, inputs, outputs string
		want                  Chat
		says                  string
	}{
		{"by name", question + history, answer + other, Chat{"q", "a", "chat_history"}, ""},
		{"by mark", question + history + "  past: {type: list, is_chat_history: true}\n", answer, Chat{"q", "a", "past"}, ""},
		{"marked otherwise", question + "  chat_history: {type: list, is_chat_history: false}\n", answer, Chat{"q", "a", ""}, "chat_history is required in the inputs of chat flow"},
		{"mark of nothing", question + "  chat_history: {type: list, is_chat_history: null}\n", answer, Chat{"q", "a", "chat_history"}, ""},
		{"no history", question, answer, Chat{"q", "a", ""}, "chat_history is required in the inputs of chat flow"},
		{"no outputs", question + history, "", Chat{"q", "", "chat_history"}, ""},
		{"no chat output", question + history, other, Chat{"q", "", "chat_history"}, "chat output is not configured"},
		{"two outputs", question + history, answer + "  b: {type: string, reference: \"${inputs.q}\", is_chat_output: true}\n", Chat{"q", "b", "chat_history"}, "chat flow does not support multiple chat outputs"},
		{"no input", history, "", Chat{"", "", "chat_history"}, "chat flow does not support multiple chat inputs"},
		{"two inputs", question + "  r: {type: string, is_chat_input: true}\n" + history, answer, Chat{"r", "a", "chat_history"}, "chat flow does not support multiple chat inputs"},
	}
	for _, tc := range cases {
		f, err := Load(fstest.MapFS{"flow.dag.yaml": {Data: []byte("inputs:\n" + tc.inputs + "outputs:\n" + tc.outputs)}})
		must.NoError(t, err, must.Sprint(tc.name))
		got, err := f.Chat()
		test.Eq(t, tc.want, got, test.Sprint(tc.name))
		if tc.says == "" {
			test.NoError(t, err, test.Sprint(tc.name))
		} else {
			test.EqError(t, err, tc.says, test.Sprint(tc.name))
		}
	}
}
