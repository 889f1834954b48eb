package validate

import (
	"regexp"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
)

// invalidRole is what a chat node fails with when its prompt does not begin with a role.
var invalidRole = flow.Class{api.UserError, "ToolValidationError", "ChatAPIInvalidRole"}

var (
	// jinjaTag is anything that renders to a text that is not known here.
	jinjaTag = regexp.MustCompile(`(?s)\{[{%#].*?[}%#]\}`)
	// almostRole is a line that looks like a role separator and is none.
	almostRole = regexp.MustCompile(`(?im)^[ \t]*(#*)[ \t]*(system|user|assistant|function|tool|developer)[ \t]*:[ \t]*(\S.*)?$`)
)

// roles checks the text of a chat template for the lines that separate its messages: "system:", "# user:" and their like.
func (c *checking) roles(u *unit, text string) {
	file := cleanPath(u.Source.Path)
	at := func(offset int) flow.Place {
		line, column := position(text, offset)
		return flow.Place{File: file, Line: line, Column: column}
	}
	separators := tool.Roles(text)
	for _, m := range almostRole.FindAllStringSubmatchIndex(text, -1) {
		if !isSeparator(separators, m[4]) {
			c.almostRole(u, at(m[4]), text[m[2]:m[3]], text[m[4]:m[5]], m[6] >= 0, m[1] == len(text))
		}
	}
	first := len(text)
	if len(separators) > 0 {
		first = separators[0][0]
	}
	start := strings.TrimLeft(text[:first], " \t\r\n")
	offset := first - len(start)
	if start == "" || jinjaTag.FindStringIndex(start) != nil && jinjaTag.FindStringIndex(start)[0] == 0 {
		return // there is no text before the first role, or what it is shows when it is rendered
	}
	literal := start
	if tag := jinjaTag.FindStringIndex(start); tag != nil {
		literal = start[:tag[0]]
	}
	if strings.Trim(literal, "# \t\r\n") == "" {
		return // the beginning of a separator
	}
	c.report.err(invalidRole, at(offset), u,
		"The chat prompt of node '"+u.Name+"' begins with text before its first role, which the chat API cannot take: the node fails.",
		"Put a line with 'system:' or 'user:' above it.")
}

func isSeparator(separators [][2]int, offset int) bool {
	for _, s := range separators {
		if s[0] == offset {
			return true
		}
	}
	return false
}

// almostRole warns of a line that reads like a role and is part of a message's text.
func (c *checking) almostRole(u *unit, at flow.Place, marks, role string, followed, last bool) {
	text := "The line is not taken for a role"
	var mend string
	switch lower := strings.ToLower(role); {
	case lower == "developer":
		text, mend = text+": there is no role 'developer'.", "Write '# system:'."
	case len(marks) > 1:
		text, mend = text+": a role has one '#' at most.", "Write '# "+lower+":'."
	case followed:
		return // "user: hi" is as likely to be a sentence
	case last:
		text, mend = text+": nothing follows it.", "Put an empty line behind it, or remove it."
	default:
		return
	}
	c.report.warn("RoleNotRecognized", at, u, text, mend)
}
