package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// title is a test's name as words.
func title(test string) string {
	name := strings.TrimPrefix(test, "TestNomad_")
	return strings.ReplaceAll(strings.ReplaceAll(name, "/", ": "), "_", " ")
}

// maxReason bounds what a table tells of a failure; the whole of it is in the run's log.
const maxReason = 300

// writeTable writes a table of scenario × version in Markdown, and below it why scenarios failed or were skipped.
func writeTable(w io.Writer, all []results, host string) {
	var tests []string
	for _, r := range all {
		for _, s := range r.scenarios {
			if !slices.Contains(tests, s.test) {
				tests = append(tests, s.test)
			}
		}
	}
	slices.Sort(tests)

	fmt.Fprintf(w, "| scenario |")
	for _, r := range all {
		fmt.Fprintf(w, " %s |", r.version)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(all)))
	var notes []string
	for _, test := range tests {
		fmt.Fprintf(w, "| %s |", title(test))
		for _, r := range all {
			fmt.Fprintf(w, " %s |", cell(r, test, &notes))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\n%s\n", host)
	for i, note := range notes {
		fmt.Fprintf(w, "\n%d. %s\n", i+1, note)
	}
}

// cell is the outcome with the number of its reason, which is added to notes.
func cell(r results, test string, notes *[]string) string {
	s, ok := r.find(test)
	if !ok {
		return "-"
	}
	if s.outcome == passed {
		return s.outcome
	}
	note := s.reason
	if len(note) > maxReason {
		note = strings.ToValidUTF8(note[:maxReason], "") + "..."
	}
	i := slices.Index(*notes, note)
	if i < 0 {
		*notes = append(*notes, note)
		i = len(*notes) - 1
	}
	if s.outcome == failed {
		return fmt.Sprintf("**fail** (%d)", i+1)
	}
	return fmt.Sprintf("%s (%d)", s.outcome, i+1)
}
