package validate

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// maxProblems bounds what one validation reports; who has as many mistakes mends the first ones first.
const maxProblems = 1000

// report collects problems. What was said of the same place before is not said again.
type report struct {
	folder   *folder
	problems []api.Problem
	seen     map[string]bool
}

// failure reports an error as prompt flow fails with it. Without a mend, the advice at the end of its message is one.
func (r *report) failure(err error, mend string, u *unit) {
	var e *api.Error
	if !errors.As(err, &e) {
		e = api.AsError(err)
	}
	p := api.Problem{Severity: api.SeverityError, Code: e.Class(), Codes: e.Chain(), Message: e.Message, Mend: mend}
	if e.Location != nil {
		p.Location = *e.Location
	}
	if p.Mend == "" {
		p.Message, p.Mend = advice(e.Message)
	}
	r.add(p, u)
}

// err reports a mistake of ours to name, under one of prompt flow's classes.
func (r *report) err(class flow.Class, at flow.Place, u *unit, message, mend string) {
	r.add(api.Problem{Severity: api.SeverityError, Code: class[len(class)-1], Codes: class, Message: message, Mend: mend, Location: location(at)}, u)
}

// warn reports what prompt flow passes over.
func (r *report) warn(code string, at flow.Place, u *unit, message, mend string) {
	r.add(api.Problem{Severity: api.SeverityWarning, Code: code, Message: message, Mend: mend, Location: location(at)}, u)
}

// said reports whether an error with this message has been reported, wherever.
func (r *report) said(message string) bool {
	return slices.ContainsFunc(r.problems, func(p api.Problem) bool { return p.Message == message })
}

// hasError reports whether something is wrong with a node.
func (r *report) hasError(u *unit) bool {
	return slices.ContainsFunc(r.problems, func(p api.Problem) bool {
		return p.Severity == api.SeverityError && p.Node == u.Name && p.Variant == u.variant
	})
}

func location(at flow.Place) api.Location {
	return api.Location{File: at.File, Line: at.Line, Column: at.Column}
}

func (r *report) add(p api.Problem, u *unit) {
	if u != nil {
		p.Node, p.Variant = u.Name, u.variant
	}
	p.Text = r.folder.line(p.File, p.Line)
	if p.Line > 0 && p.Column == 0 {
		p.Column = 1 + len(p.Text) - len(strings.TrimLeft(p.Text, " \t"))
	}
	key := strings.Join([]string{p.File, p.Code, p.Message, place(p.Location)}, "\x00")
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	if r.seen[key] || len(r.problems) >= maxProblems {
		return
	}
	r.seen[key] = true
	r.problems = append(r.problems, p)
}

func place(l api.Location) string { return strconv.Itoa(l.Line) + ":" + strconv.Itoa(l.Column) }

// sorted returns the problems by place; those of one place stay in the order in which they were found.
func (r *report) sorted() []api.Problem {
	main := func(p api.Problem) int {
		if strings.HasPrefix(p.File, "flow.") {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(r.problems, func(a, b api.Problem) int {
		return cmp.Or(cmp.Compare(main(a), main(b)), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if r.problems == nil {
		return []api.Problem{}
	}
	return r.problems
}

// advice parts a message from the sentence at its end that says what to do.
func advice(message string) (text, mend string) {
	at := strings.LastIndex(message, ". Please ")
	if at < 0 {
		return message, "Correct it and validate again."
	}
	return message[:at+1], message[at+2:]
}
