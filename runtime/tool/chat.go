package tool

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// The parts that a message's text may be made of, in promptflow-tools' own patterns.
var (
	namePattern = regexp.MustCompile(pythonSpaces(
		`(?s)\n*#{0,2}\s*name\s*:\s*\n+\s*(\S+)\s*\n*#{0,2}\s*content\s*:\s*\n?(.*)`))
	toolCallIDPattern = regexp.MustCompile(pythonSpaces(
		`(?s)\n*#{0,2}\s*tool_call_id\s*:\s*\n+\s*(\S+)\s*\n*#{0,2}\s*content\s*:\s*\n?(.*)`))
	toolCallsPattern = regexp.MustCompile(pythonSpaces(`(?s)\n*#{0,2}\s*tool_calls\s*:\s*\n+\s*(\[.*?\])`))
)

// parseChat reads a rendered template into chat messages (promptflow.tools.common.parse_chat). The words that m hides are restored
// in error messages only.
func parseChat(text string, m mapping, p pictures) ([]any, error) {
	messages := []any{}
	var last *value.Dict
	for _, chunk := range splitRoles(text) {
		done, err := fillMessage(last, chunk, p)
		if err != nil {
			return nil, err
		}
		if done || value.Strip(chunk) == "" {
			continue
		}
		role := lower(value.Strip(chunk))
		if !slices.Contains(validRoles, role) {
			return nil, invalidRole(role, m)
		}
		last = value.NewDict()
		last.Set("role", role)
		messages = append(messages, last)
	}
	return messages, nil
}

// fillMessage gives chunk to the last message when that still waits for something, and reports whether it took it.
func fillMessage(last *value.Dict, chunk string, p pictures) (bool, error) {
	if last == nil {
		return false, nil
	}
	role, _ := last.Get("role")
	hasContent := last.Has("content")
	if role == "tool" && !hasContent {
		return true, fillTool(last, chunk, p)
	}
	if role == "assistant" {
		if calls, found := parseToolCalls(chunk); found {
			last.Set("tool_calls", calls)
			return true, nil
		}
	}
	if hasContent || last.Has("tool_calls") {
		return false, nil
	}
	return true, fillContent(last, chunk, p)
}

func fillTool(last *value.Dict, chunk string, p pictures) error {
	m := find(toolCallIDPattern, chunk, "tool_call_id")
	if m == nil {
		return toolError("ChatAPIToolRoleInvalidFormat", "%s", toolRoleFormat)
	}
	last.Set("tool_call_id", m[1])
	return p.setContent(last, m[2])
}

func fillContent(last *value.Dict, chunk string, p pictures) error {
	if m := find(namePattern, chunk, "name"); m != nil {
		last.Set("name", m[1])
		return p.setContent(last, m[2])
	}
	if role, _ := last.Get("role"); role == "function" {
		return toolError("ChatAPIFunctionRoleInvalidFormat", "%s", functionRoleFormat)
	}
	return p.setContent(last, chunk)
}

// find matches pattern in text, which holds no match unless it holds word.
func find(pattern *regexp.Regexp, text, word string) []string {
	if !strings.Contains(text, word) {
		return nil
	}
	return pattern.FindStringSubmatch(text)
}

// parseToolCalls reads the tool calls of an assistant's message, a Python literal after "tool_calls:". What is no
// literal is not found, as in promptflow-tools; a literal without JSON is kept as *unsendable, which fails when it is sent.
func parseToolCalls(chunk string) (any, bool) {
	m := find(toolCallsPattern, chunk, "tool_calls")
	if m == nil {
		return nil, false
	}
	v, err := parseLiteral(m[1])
	var odd *unsendable
	if errors.As(err, &odd) {
		return odd, true
	}
	return v, err == nil
}

func invalidRole(role string, m mapping) error {
	quoted := make([]string, len(validRoles))
	for i, r := range validRoles {
		quoted[i] = `'` + r + `:\n'`
	}
	return toolError("ChatAPIInvalidRole",
		"The Chat API requires a specific format for prompt definition, and the prompt should include separate "+
			"lines as role delimiters: %s. Current parsed role '%s'"+
			" does not meet the requirement. If you intend to use the Completion API, please select the appropriate"+
			" API type and deployment name. If you do intend to use the Chat API, please refer to the guideline at "+
			"https://aka.ms/pfdoc/chat-prompt or view the samples in our gallery that contain 'Chat' in the name.",
		strings.Join(quoted, ","), m.restore(role))
}

const functionRoleFormat = `Failed to parse function role prompt. Please make sure the prompt follows the ` +
	`format: 'name:\nfunction_name\ncontent:\nfunction_content'. ` +
	`'name' is required if role is function, and it should be the name of the function ` +
	`whose response is in the content. May contain a-z, A-Z, 0-9, and underscores, ` +
	`with a maximum length of 64 characters. See more details in ` +
	`https://platform.openai.com/docs/api-reference/chat/create#chat/create-name ` +
	`or view sample 'How to use functions with chat models' in our gallery.`

const toolRoleFormat = `Failed to parse tool role prompt. Please make sure the prompt follows the ` +
	`format: 'tool_call_id:\ntool_call_id\ncontent:\ntool_content'. ` +
	`'tool_call_id' is required if role is tool, and it should be the tool call that this message is responding` +
	` to. See more details in https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages`

// lower is Python's str.lower, which knows two characters whose small form depends on more than themselves: the dotted
// capital I becomes two characters, and a sigma that ends a word is the final one.
func lower(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	runes := []rune(s)
	for i, r := range runes {
		switch {
		case r == 'İ':
			b.WriteString("i̇")
		case r == 'Σ' && endsWord(runes, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// endsWord reports whether a letter comes before i and none after it; marks in between do not count.
func endsWord(runes []rune, i int) bool {
	before := i - 1
	for before >= 0 && caseIgnorable(runes[before]) {
		before--
	}
	after := i + 1
	for after < len(runes) && caseIgnorable(runes[after]) {
		after++
	}
	return before >= 0 && cased(runes[before]) && (after == len(runes) || !cased(runes[after]))
}

func cased(r rune) bool {
	return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r)
}

func caseIgnorable(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk) || strings.ContainsRune("'.:·’․﹒＇．：", r)
}
