package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Outcomes of a scenario, as go test calls them.
const (
	passed  = "pass"
	failed  = "fail"
	skipped = "skip"
)

// results are the scenarios that were run with one version, in the order in which they began.
type results struct {
	version   string
	scenarios []scenario
}

type scenario struct {
	test    string // its name in Go
	outcome string
	reason  string // of a failure or skip
}

func (r results) failed() bool {
	return slices.ContainsFunc(r.scenarios, func(s scenario) bool { return s.outcome == failed })
}

func (r results) find(test string) (scenario, bool) {
	i := slices.IndexFunc(r.scenarios, func(s scenario) bool { return s.test == test })
	if i < 0 {
		return scenario{}, false
	}
	return r.scenarios[i], true
}

// event is a line of go test -json.
type event struct {
	Action string
	Test   string
	Output string
}

// record is what go test said of one test.
type record struct {
	outcome string
	output  strings.Builder
	parent  bool // it has tests of its own
}

// readResults reads what go test -json prints. Each outcome is told as it comes.
func readResults(from io.Reader, tell func(test, action string)) (results, error) {
	records := map[string]*record{}
	var order []string
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return results{}, fmt.Errorf("read go test's output %q: %w", lines.Text(), err)
		}
		if e.Test == "" {
			continue
		}
		r, known := records[e.Test]
		if !known {
			r = &record{}
			records[e.Test] = r
			order = append(order, e.Test)
			if above, ok := records[parentOf(e.Test)]; ok {
				above.parent = true
			}
		}
		switch e.Action {
		case passed, failed, skipped:
			r.outcome = e.Action
			if !r.parent {
				tell(e.Test, e.Action)
			}
		case "output":
			r.output.WriteString(e.Output)
		}
	}
	return collect(order, records), lines.Err()
}

func parentOf(test string) string {
	if i := strings.LastIndex(test, "/"); i >= 0 {
		return test[:i]
	}
	return ""
}

// collect takes the tests without tests of their own, and those with some that failed by themselves, as in their clean-up.
func collect(order []string, records map[string]*record) results {
	var all results
	for _, test := range order {
		r := records[test]
		s := scenario{test: test, outcome: r.outcome}
		switch r.outcome {
		case passed:
		case "":
			s.outcome, s.reason = failed, "it did not end"
		default:
			s.reason = reason(r.output.String())
		}
		if !r.parent || s.outcome == failed && !childFailed(test, order, records) {
			all.scenarios = append(all.scenarios, s)
		}
	}
	return all
}

func childFailed(test string, order []string, records map[string]*record) bool {
	return slices.ContainsFunc(order, func(other string) bool {
		outcome := records[other].outcome
		return parentOf(other) == test && (outcome == failed || outcome == "")
	})
}

// position is where in the tests a line of output comes from.
var position = regexp.MustCompile(`^\s+\w+\.go:\d+:\s*`)

// reason is the first that a test printed with its position, with the line that follows when that says no more.
func reason(output string) string {
	lines := strings.Split(output, "\n")
	for i, line := range lines {
		if !position.MatchString(line) {
			continue
		}
		said := []string{position.ReplaceAllString(line, "")}
		for _, more := range lines[i+1 : min(i+4, len(lines))] {
			said = append(said, strings.TrimSpace(position.ReplaceAllString(more, "")))
		}
		said = slices.DeleteFunc(said, func(s string) bool { return s == "" || strings.HasPrefix(s, "--- ") || strings.HasPrefix(s, "=== ") })
		return strings.Join(said, " ")
	}
	return "it gave no reason"
}
