package command

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// printProblems shows a validation to people: each problem with its line, and at the end how many there are.
func printProblems(w io.Writer, v *api.Validation, shown func(string) string, took time.Duration) {
	for _, p := range v.Problems {
		if p.File != "" {
			p.File = shown(p.File)
		}
		printProblem(w, p)
	}
	for _, what := range v.Unchecked {
		_, _ = fmt.Fprintf(w, "not checked: %s\n", what)
	}
	if len(v.Unchecked) > 0 {
		_, _ = fmt.Fprintln(w)
	}
	_, _ = fmt.Fprintf(w, "%s in %s%s\n", verdict(v), seconds(took.Seconds()), whereChecked(v))
}

func printProblem(w io.Writer, p api.Problem) {
	place := ""
	if p.File != "" {
		place = p.File + ": "
	}
	if p.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	variant := ""
	if p.Variant != "" {
		variant = fmt.Sprintf(" [variant %s of node %s]", p.Variant, p.Node)
	}
	_, _ = fmt.Fprintf(w, "%s%s: %s (%s)%s\n", place, p.Severity, p.Message, p.Code, variant)
	if p.Line > 0 && p.Text != "" {
		number := fmt.Sprintf("%5d", p.Line)
		_, _ = fmt.Fprintf(w, "%s | %s\n", number, p.Text)
		_, _ = fmt.Fprintf(w, "%s | %s^\n", strings.Repeat(" ", len(number)), blank(p.Text, p.Column-1))
	}
	_, _ = fmt.Fprintf(w, "      = %s\n\n", p.Mend)
}

// blank is as wide as the first characters of a line, tabs included.
func blank(line string, characters int) string {
	var b strings.Builder
	n := 0
	for _, r := range line {
		if n >= characters {
			break
		}
		n++
		if r == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func verdict(v *api.Validation) string {
	errs, warnings := v.Count(api.SeverityError), v.Count(api.SeverityWarning)
	switch {
	case errs > 0 && warnings > 0:
		return counted(errs, "error") + ", " + counted(warnings, "warning")
	case errs > 0:
		return counted(errs, "error")
	case warnings > 0:
		return "valid, with " + counted(warnings, "warning")
	default:
		return "valid"
	}
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// whereChecked says who validated, and how much of it could be taken from before.
func whereChecked(v *api.Validation) string {
	if v.Runtime == "" {
		return ", without a runtime"
	}
	text := fmt.Sprintf(" (%s in runtime %s", seconds(v.Duration), v.Runtime)
	if total := v.Reused + v.Checked; v.Reused > 0 {
		text += fmt.Sprintf("; %d of %d tools and templates checked anew", v.Checked, total)
	}
	return text + ")"
}
