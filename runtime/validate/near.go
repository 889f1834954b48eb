package validate

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// near returns the names that someone who wrote name may have meant, at most three, the nearest first.
func near(name string, names []string) []string {
	type candidate struct {
		name     string
		distance int
	}
	if len(name) > 200 {
		return nil
	}
	bound := max(1, len(name)/3)
	if len(name) > 3 {
		bound = max(2, bound) // two characters that changed places
	}
	lower := strings.ToLower(name)
	var found []candidate
	for _, n := range names {
		if len(n) > 200 || n == name || slices.ContainsFunc(found, func(c candidate) bool { return c.name == n }) {
			continue
		}
		d := levenshtein.Distance(lower, strings.ToLower(n), nil)
		if d <= bound && d < max(len(name), len(n)) || len(name) >= 3 && strings.HasPrefix(strings.ToLower(n), lower) {
			found = append(found, candidate{n, d})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.distance - b.distance })
	out := make([]string, 0, 3)
	for _, c := range found[:min(3, len(found))] {
		out = append(out, c.name)
	}
	return out
}

// didYouMean is a mend that names what may have been meant, each in the given form; fallback is the mend when nothing is near.
func didYouMean(name string, names []string, form func(string) string, fallback string) string {
	found := near(name, names)
	if len(found) == 0 {
		return fallback
	}
	for i, n := range found {
		found[i] = form(n)
	}
	return "Did you mean " + strings.Join(found, " or ") + "?"
}

func quoted(name string) string { return "'" + name + "'" }

// listed names things in a sentence, and how many more there are.
func listed(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + " and others"
}
