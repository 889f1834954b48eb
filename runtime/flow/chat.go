package flow

import "errors"

// chatHistory is the name that makes an input the history of a chat, unless the file says otherwise.
const chatHistory = "chat_history"

// Chat names the parts of a flow that chats.
type Chat struct {
	Input   string // takes what is said
	Output  string // answers; empty: the flow has no outputs
	History string // takes a list of what was said before, {"inputs": {…}, "outputs": {…}} each
}

// Chat returns what makes the flow a chat flow; the error says what keeps it from being one (prompt flow's
// is_executable_chat_flow, with its texts).
func (f *Flow) Chat() (Chat, error) {
	c := Chat{History: f.history()}
	inputs, outputs := 0, 0
	for _, in := range f.Inputs {
		if in.IsChatInput {
			c.Input = in.Name
			inputs++
		}
	}
	for _, out := range f.Outputs {
		if out.IsChatOutput {
			c.Output = out.Name
			outputs++
		}
	}
	switch {
	case inputs != 1:
		return c, errors.New("chat flow does not support multiple chat inputs")
	case outputs > 1:
		return c, errors.New("chat flow does not support multiple chat outputs")
	case outputs == 0 && len(f.Outputs) > 0:
		return c, errors.New("chat output is not configured")
	case c.History == "":
		return c, errors.New("chat_history is required in the inputs of chat flow")
	}
	return c, nil
}

// history returns the name of the input that takes the history: the first that is marked so, or the one that is called so and not
// marked otherwise.
func (f *Flow) history() string {
	for _, in := range f.Inputs {
		if in.MarksHistory != nil && *in.MarksHistory {
			return in.Name
		}
	}
	if in := f.Input(chatHistory); in != nil && in.MarksHistory == nil {
		return in.Name
	}
	return ""
}
