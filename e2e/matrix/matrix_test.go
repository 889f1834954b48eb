package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// said is go test's output in the form of -json.
func said(t *testing.T, events ...event) *strings.Reader {
	t.Helper()
	var b strings.Builder
	must.NoError(t, json.NewEncoder(&b).Encode(map[string]string{"Action": "start", "Package": "e2e"}))
	for _, e := range events {
		must.NoError(t, json.NewEncoder(&b).Encode(e))
	}
	return strings.NewReader(b.String())
}

func read(t *testing.T, events ...event) results {
	t.Helper()
	seen, err := readResults(said(t, events...), func(string, string) {})
	must.NoError(t, err)
	return seen
}

func TestReadResults_takesTestsWithoutTestsOfTheirOwn(t *testing.T) {
	t.Parallel()
	got := read(t,
		event{Action: "run", Test: "TestNomad_jobs"},
		event{Action: "run", Test: "TestNomad_jobs/service"},
		event{Action: "run", Test: "TestNomad_jobs/cores"},
		event{Action: "output", Test: "TestNomad_jobs/cores", Output: "=== RUN   TestNomad_jobs/cores\n"},
		event{Action: "output", Test: "TestNomad_jobs/cores", Output: "    jobs_test.go:12: this agent has no cores\n"},
		event{Action: "output", Test: "TestNomad_jobs/cores", Output: "--- SKIP: TestNomad_jobs/cores (0.00s)\n"},
		event{Action: "skip", Test: "TestNomad_jobs/cores"},
		event{Action: "pass", Test: "TestNomad_jobs/service"},
		event{Action: "pass", Test: "TestNomad_jobs"},
	)
	test.Eq(t, []scenario{
		{test: "TestNomad_jobs/service", outcome: passed},
		{test: "TestNomad_jobs/cores", outcome: skipped, reason: "this agent has no cores"},
	}, got.scenarios)
	test.False(t, got.failed())
}

func TestReadResults_losesNoFailure(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		events []event
		want   scenario
	}{
		{"of a scenario", []event{
			{Action: "run", Test: "TestNomad_a"},
			{Action: "run", Test: "TestNomad_a/b"},
			{Action: "output", Test: "TestNomad_a/b", Output: "    a_test.go:1: \n        a_test.go:1: expected equality\n        ↪ a\n"},
			{Action: "fail", Test: "TestNomad_a/b"},
			{Action: "fail", Test: "TestNomad_a"},
		}, scenario{"TestNomad_a/b", failed, "expected equality ↪ a"}},
		{"before there were scenarios", []event{
			{Action: "run", Test: "TestNomad_a"},
			{Action: "output", Test: "TestNomad_a", Output: "    nomad.go:7: harness: no leader\n"},
			{Action: "fail", Test: "TestNomad_a"},
		}, scenario{"TestNomad_a", failed, "harness: no leader"}},
		{"after all scenarios", []event{
			{Action: "run", Test: "TestNomad_a"},
			{Action: "run", Test: "TestNomad_a/b"},
			{Action: "pass", Test: "TestNomad_a/b"},
			{Action: "output", Test: "TestNomad_a", Output: "    nomad.go:7: harness: shim 12 did not end\n"},
			{Action: "fail", Test: "TestNomad_a"},
		}, scenario{"TestNomad_a", failed, "harness: shim 12 did not end"}},
		{"by a panic", []event{
			{Action: "run", Test: "TestNomad_a"},
			{Action: "output", Test: "TestNomad_a", Output: "panic: oh\n"},
		}, scenario{"TestNomad_a", failed, "it did not end"}},
		{"without a word", []event{
			{Action: "run", Test: "TestNomad_a"},
			{Action: "fail", Test: "TestNomad_a"},
		}, scenario{"TestNomad_a", failed, "it gave no reason"}},
	} {
		got := read(t, c.events...)
		test.True(t, got.failed(), test.Sprint(c.name))
		test.True(t, slices.Contains(got.scenarios, c.want), test.Sprintf("%s: %+v", c.name, got.scenarios))
		test.Error(t, verdict([]results{got}), test.Sprint(c.name))
	}
	test.ErrorContains(t, verdict([]results{{version: "1.9.7"}}), "1.9.7: no scenario ran")
}

func TestWriteTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	writeTable(&b, []results{
		{version: "1.6.5", scenarios: []scenario{{"TestNomad_jobs/cores", skipped, "no cores"}, {"TestNomad_jobs/batch", passed, ""}}},
		{version: "1.9.7", scenarios: []scenario{{"TestNomad_jobs/cores", failed, "full disk"}}},
		{version: "2.0.5", scenarios: []scenario{{"TestNomad_jobs/cores", skipped, "no cores"}, {"TestNomad_jobs/batch", passed, ""}}},
	}, "Linux 6")
	test.Eq(t, `| scenario | 1.6.5 | 1.9.7 | 2.0.5 |
|---|---|---|---|
| jobs: batch | pass | - | pass |
| jobs: cores | skip (1) | **fail** (2) | skip (1) |

Linux 6

1. no cores

2. full disk
`, b.String())
}

func TestBinaries(t *testing.T) {
	got, err := binaries([]string{"/opt/a", "b"})
	must.NoError(t, err)
	must.Len(t, 2, got)
	test.Eq(t, "/opt/a", got[0])
	test.StrHasPrefix(t, "/", got[1])
	t.Setenv("NOMAD_BIN", "/opt/c")
	got, err = binaries(nil)
	must.NoError(t, err)
	test.Eq(t, []string{"/opt/c"}, got)
	t.Setenv("NOMAD_BIN", "")
	t.Setenv("PATH", t.TempDir())
	_, err = binaries(nil)
	test.ErrorContains(t, err, "NOMAD_BINS")
}
