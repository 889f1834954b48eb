package fidelity

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// foreignTimeout bounds a flow of other people's.
const foreignTimeout = 100 * time.Second

// TestForeignFlows compares the flows below the folder that PROMPTFLOW_FLOWS names and prints a table. It fails only when it cannot
// compare: what differs is for the reader to judge.
func TestForeignFlows(t *testing.T) {
	harness.Integration(t)
	root := os.Getenv("PROMPTFLOW_FLOWS")
	if root == "" {
		t.Skip("set PROMPTFLOW_FLOWS to a folder with flows")
	}
	// Flows include what is beside them and write where they are, so the executor gets a copy of the whole folder.
	copied := filepath.Join(t.TempDir(), "flows")
	must.NoError(t, os.CopyFS(copied, os.DirFS(root)))
	flows, err := Discover(copied)
	must.NoError(t, err)
	must.SliceNotEmpty(t, flows, must.Sprintf("no flow below %s", root))
	all := Connections(connections(t), flows)
	theirs, ours := run(t, flows, all, foreignTimeout, true)
	known, err := LoadDifferences("differences.yaml")
	must.NoError(t, err)

	verdicts := make([]Verdict, len(flows))
	var again []Flow // different: does prompt flow itself give the same twice?
	var places []int
	for i, f := range flows {
		verdicts[i] = Judge(f, theirs[i], ours[i])
		verdicts[i].Differences = known.Without(verdicts[i].Differences)
		if len(verdicts[i].Differences) > 0 {
			again, places = append(again, f), append(places, i)
		}
	}
	if len(again) > 0 {
		second := runTheirs(t, again, all, foreignTimeout, true)
		for n, i := range places {
			verdicts[i].Unsteady = Compare(&again[n], theirs[i], second[n])
		}
	}
	printTable(verdicts)
}

// printTable prints a line per flow, below it what differs, and in the end the sums.
func printTable(verdicts []Verdict) {
	sums := map[string]int{}
	for _, v := range verdicts {
		differences := v.Steady()
		kind, detail := "equal", fmt.Sprintf("%d cases", len(v.Flow.Cases))
		switch {
		case v.Offline != "":
			kind, detail = "not offline", v.Offline
		case len(differences) > 0:
			kind, detail = "different", ""
		case len(v.Differences) > 0:
			kind, detail = "equal", "but for what differs from run to run on prompt flow too"
		}
		sums[kind]++
		fmt.Printf("%-12s %s  %s\n", kind, v.Flow.Name, detail)
		for _, d := range differences {
			fmt.Printf("%-12s   %.700s\n", "", d)
		}
	}
	fmt.Printf("\n%d flows: %d equal, %d different, %d not runnable offline\n", len(verdicts), sums["equal"], sums["different"], sums["not offline"])
}

func TestDiscover_SuggestsInputs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(dir, path)
		must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("defaults/flow.dag.yaml", "inputs: {a: {type: int, default: 3}}\noutputs: {}\nnodes: []\n")
	write("made-up/flow.dag.yaml", "inputs: {a: {type: int}, b: {type: string}}\noutputs: {}\nnodes: []\n")
	write("rows/flow.dag.yaml", "inputs: {a: {type: int}}\noutputs: {}\nnodes: [{name: n, aggregation: true}]\n")
	write("rows/data.jsonl", "{\"b\": 1}\n{\"a\": 1, \"more\": 2}\n{\"a\": 2}\n")
	write("broken/flow.dag.yaml", "inputs: [\n")
	write("prompts/one.prompty", "---\ninputs: {a: {type: string}}\n---\nuser:\n{{ a }}\n")
	write("prompts/two.prompty", "---\nsample: {a: b}\n---\n")
	write("cases/flow.flex.yaml", "entry: a:b\n")
	write("cases/cases.yaml", "cases: [{inputs: {x: 1}}]\n")
	write(".git/flow.dag.yaml", "")

	flows, err := Discover(dir)
	must.NoError(t, err)
	got := map[string]string{}
	for _, f := range flows {
		for _, c := range f.Cases {
			got[f.Name] += string(value.Encode(c.dict()))
		}
	}
	test.Eq(t, map[string]string{
		"defaults": `{"inputs":{}}`, "made-up": `{"inputs":{"a":2,"b":"text"}}`, "broken": `{"inputs":{}}`,
		"rows":                `{"inputs":{"a":1}}{"inputs":{"a":2}}{"lines":[{"a":1},{"a":2}]}`,
		"prompts/one.prompty": `{"inputs":{"a":"text"}}`, "prompts/two.prompty": `{"inputs":{}}`, "cases": `{"inputs":{"x":1}}`,
	}, got)
}

func TestJudge(t *testing.T) {
	t.Parallel()
	failure := func(class, message string) Outcome {
		return Outcome{Cases: []any{dict("failure", dict("codes", []any{"UserError", class}, "message", message))}}
	}
	missing := failure("PythonLoadError", "(ModuleNotFoundError) No module named 'torch'")
	cases := []struct {
		name         string
		theirs, ours Outcome
		offline      string
		differences  int
	}{
		{"equal", failure("A", "x"), failure("A", "x"), "", 0},
		{"other message", failure("A", "x"), failure("A", "y"), "", 1},
		{"module missing", missing, missing, "needs the Python module torch", 0},
		{"module missing, said otherwise", missing, failure("PythonLoadError", "no torch"), "needs the Python module torch", 0},
		{"module missing, other class", missing, failure("SystemError", "no torch"), "", 2},
		{"takes long", Outcome{Broken: "it takes longer than 9 seconds"}, Outcome{Broken: "it takes longer than 9 seconds"}, "it takes longer than 9 seconds", 0},
	}
	for _, c := range cases {
		v := Judge(Flow{Name: "f"}, c.theirs, c.ours)
		test.Eq(t, c.offline, v.Offline, test.Sprint(c.name))
		test.Len(t, c.differences, v.Differences, test.Sprint(c.name))
	}
}

func TestVerdict_LeavesOutWhatDiffersFromRunToRun(t *testing.T) {
	t.Parallel()
	v := Verdict{
		Differences: []Difference{{Case: 0, Path: "lines[0].output.a"}, {Case: 0, Path: "lines[0].output.b"}, {Case: 1, Path: "lines[0].output.a"}},
		Unsteady:    []Difference{{Case: 0, Path: "lines[0].output.a"}},
	}
	test.Eq(t, []Difference{{Case: 0, Path: "lines[0].output.b"}, {Case: 1, Path: "lines[0].output.a"}}, v.Steady())
	v.Unsteady = []Difference{{Case: 1, Path: "lines[0].status"}}
	test.Eq(t, v.Differences[:2], v.Steady(), test.Sprint("a line that fails at random differs everywhere"))
}
