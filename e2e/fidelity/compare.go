package fidelity

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Difference is a place at which the two sides differ.
type Difference struct {
	Flow         string
	Case         int
	Path         string // inside of the result, such as "lines[0].nodes.grade.output"
	Theirs, Ours string // as Python writes them
}

// String says what differs, on one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s, case %d, %s: promptflow has %s, we have %s", d.Flow, d.Case, d.Path, shorten(d.Theirs), shorten(d.Ours))
}

func shorten(text string) string {
	const most = 1500
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

// Compare returns what differs between two outcomes of a flow, by case.
func Compare(f *Flow, theirs, ours Outcome) []Difference {
	if theirs.Broken != "" || ours.Broken != "" {
		if theirs.Broken == ours.Broken {
			return nil
		}
		return []Difference{{Flow: f.Name, Path: "broken", Theirs: value.Repr(theirs.Broken), Ours: value.Repr(ours.Broken)}}
	}
	var all []Difference
	for i := range theirs.Cases {
		compare("", theirs.Cases[i], unraised(theirs.Cases[i], ours.Cases[i]), func(path string, a, b any) {
			all = append(all, Difference{Flow: f.Name, Case: i, Path: path, Theirs: value.Repr(a), Ours: value.Repr(b)})
		})
	}
	return all
}

// unraised returns our result of a case, shaped like theirs where that is an error alone: of a flex flow's inputs prompt flow raises
// the errors that it records for other flows; we record them all.
func unraised(theirs, ours any) any {
	their, _ := theirs.(*value.Dict)
	our, _ := ours.(*value.Dict)
	lines := dicts(our, "lines")
	if !their.Has("failure") || len(lines) != 1 || get(lines[0], "error") == nil {
		return ours
	}
	return dict("failure", get(lines[0], "error"))
}

// compare goes through both values together, so that a difference names its place.
func compare(path string, theirs, ours any, found func(path string, theirs, ours any)) {
	a, aDict := theirs.(*value.Dict)
	b, bDict := ours.(*value.Dict)
	if aDict && bDict {
		for _, k := range sorted(append(a.Keys(), b.Keys()...)) {
			compare(strings.TrimPrefix(path+"."+k, "."), get(a, k), get(b, k), found)
		}
		if isData(path) && !slices.Equal(a.Keys(), b.Keys()) && slices.Equal(sorted(a.Keys()), sorted(b.Keys())) {
			found(path+" (order of keys)", theirs, ours)
		}
		return
	}
	x, xList := theirs.([]any)
	y, yList := ours.([]any)
	if xList && yList && len(x) == len(y) {
		for i := range x {
			compare(fmt.Sprintf("%s[%d]", path, i), x[i], y[i], found)
		}
		return
	}
	if !same(path, theirs, ours) {
		found(path, theirs, ours)
	}
}

// isData reports whether a place is inside of values of the flow, where the order of keys is part of the value.
func isData(path string) bool {
	return strings.Contains(path, ".inputs.") || strings.Contains(path, ".output")
}

func sorted(keys []string) []string {
	slices.Sort(keys)
	return slices.Compact(keys)
}

var (
	// address is where an object without a repr of its own lives, which differs from run to run.
	address = regexp.MustCompile(` at 0x[0-9a-f]+`)
	// provider is what a provider of connections says of a missing one; each has its own words.
	provider = regexp.MustCompile(`(?s)(Get connection '.*' for node '.*' error: ).*`)
	// available are the connections there are, in no order.
	available = regexp.MustCompile(`(Available keys are \[)[^\]]*`)
)

func same(path string, theirs, ours any) bool {
	a, b := address.ReplaceAllString(string(value.Encode(theirs)), ""), address.ReplaceAllString(string(value.Encode(ours)), "")
	if strings.HasSuffix(path, ".message") {
		for _, words := range []*regexp.Regexp{provider, available} {
			a, b = words.ReplaceAllString(a, "$1"), words.ReplaceAllString(b, "$1")
		}
	}
	return a == b
}
