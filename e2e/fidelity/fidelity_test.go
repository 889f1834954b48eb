package fidelity

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/openai"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// atOnce is how many flows each side runs at the same time.
const atOnce = 4

// TestFlows holds the flows of the folder flows to be equal on both sides, but for what is in differences.yaml.
func TestFlows(t *testing.T) {
	harness.Integration(t)
	if os.Getenv("PROMPTFLOW_FIDELITY") == "" {
		t.Skip("the fidelity suite is not in make test yet: run make fidelity. Nine of its 215 flows differ since flex flows and validation came to main")
	}
	flows, err := Load("flows")
	must.NoError(t, err)
	only := os.Getenv("FIDELITY_ONLY") // a regular expression, while writing flows
	flows = slices.DeleteFunc(flows, func(f Flow) bool { return !regexp.MustCompile(only).MatchString(f.Name) })
	must.SliceNotEmpty(t, flows)
	known, err := LoadDifferences("differences.yaml")
	must.NoError(t, err)

	theirs, ours := run(t, flows, connections(t), time.Minute, false)
	cases, listed := 0, 0
	for i, f := range flows {
		cases += len(theirs[i].Cases)
		t.Run(f.Name, func(t *testing.T) {
			for _, o := range []Outcome{theirs[i], ours[i]} {
				must.Eq(t, "", o.Broken)
			}
			found := Compare(&f, theirs[i], ours[i])
			left := known.Without(found)
			listed += len(found) - len(left)
			if k := known.Pending(f.Name); k != nil && len(left) > 0 {
				t.Skipf("not yet: %s", k.Reason)
			}
			for _, d := range left {
				t.Error(d)
			}
			checkErrors(t, f, theirs[i])
		})
	}
	if only == "" {
		for _, k := range known.Unused() {
			t.Errorf("differences.yaml: %s of flow %s is no difference any more (%s): remove it", k.Path, k.Flow, k.Reason)
		}
	}
	t.Logf("%d flows, %d cases compared; %d deliberate differences", len(flows), cases, listed)
}

// TestFlows_CoverEveryRow holds the flows to the rows of coverage.yaml: what prompt flow documents and does.
func TestFlows_CoverEveryRow(t *testing.T) {
	t.Parallel()
	flows, err := Load("flows")
	must.NoError(t, err)
	must.GreaterEq(t, 60, len(flows))
	rows := coverage(t)
	covered := map[string]bool{}
	for _, f := range flows {
		test.SliceNotEmpty(t, f.Covers, test.Sprintf("%s covers no row of coverage.yaml", f.Name))
		for _, row := range f.Covers {
			covered[row] = true
			test.SliceContains(t, rows, row, test.Sprintf("%s covers %q, which is no row of coverage.yaml", f.Name, row))
		}
	}
	for _, row := range rows {
		test.True(t, covered[row], test.Sprintf("no flow covers %q", row))
	}
}

// coverage returns the rows of coverage.yaml as area.row.
func coverage(t *testing.T) []string {
	t.Helper()
	areas, err := readYAML("coverage.yaml")
	must.NoError(t, err)
	var rows []string
	for area, names := range areas.All() {
		for _, name := range names.([]any) {
			rows = append(rows, area+"."+value.Str(name))
		}
	}
	return rows
}

// checkErrors holds a flow that covers an error class to bring it up.
func checkErrors(t *testing.T, f Flow, theirs Outcome) {
	t.Helper()
	all := value.Repr(theirs.Cases)
	for _, row := range f.Covers {
		class, ok := strings.CutPrefix(row, "error.")
		if ok && strings.ToUpper(class[:1]) == class[:1] {
			test.StrContains(t, all, "'"+class+"'", test.Sprintf("the error class %s did not come up", class))
		}
	}
}

// run runs the flows on both sides at the same time.
func run(t *testing.T, flows []Flow, connections *value.Dict, timeout time.Duration, inPlace bool) (theirs, ours []Outcome) {
	t.Helper()
	t.Setenv("NO_PROXY", "127.0.0.1,localhost")
	ours = make([]Outcome, len(flows))
	var wg sync.WaitGroup
	wg.Go(func() { theirs = runTheirs(t, flows, connections, timeout, inPlace) })
	wg.Go(func() {
		began := time.Now()
		test.NoError(t, runOurs(t, flows, ours, connections, timeout))
		t.Logf("our runtime: %s", time.Since(began).Round(time.Millisecond))
	})
	wg.Wait()
	must.False(t, t.Failed())
	return theirs, ours
}

func runTheirs(t *testing.T, flows []Flow, connections *value.Dict, timeout time.Duration, inPlace bool) []Outcome {
	t.Helper()
	oracle := &Theirs{
		Python: harness.Python(t), Script: "testdata/oracle.py", Temporary: t.TempDir(), Connections: connections, Parallel: atOnce,
		Timeout: timeout, InPlace: inPlace, Verbose: os.Getenv("FIDELITY_VERBOSE") != "",
	}
	began := time.Now()
	outcomes := make([]Outcome, len(flows))
	test.NoError(t, oracle.Run(t.Context(), flows, func(i int, o Outcome) { outcomes[i] = o }))
	t.Logf("prompt flow's executor: %s", time.Since(began).Round(time.Millisecond))
	return outcomes
}

func runOurs(t *testing.T, flows []Flow, outcomes []Outcome, connections *value.Dict, timeout time.Duration) error {
	t.Helper()
	dir, err := os.MkdirTemp("", "fidelity-") //nolint:usetesting // short, for the socket
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	runtime, err := Start(t.Context(), dir, harness.Python(t), connections, timeout)
	if err != nil {
		return err
	}
	next := make(chan int)
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range next {
				outcomes[i] = runtime.Run(t.Context(), &flows[i])
			}
		})
	}
	for i := range flows {
		next <- i
	}
	close(next)
	wg.Wait()
	return runtime.Close()
}

// connections are those of connections.json with the endpoint's address.
func connections(t *testing.T) *value.Dict {
	t.Helper()
	_, url := openai.Start(t)
	text, err := os.ReadFile("connections.json")
	must.NoError(t, err)
	d, err := value.DecodeDict([]byte(strings.NewReplacer("ENDPOINT", url, "KEY", openai.Key).Replace(string(text))))
	must.NoError(t, err)
	return d
}

func TestMatches(t *testing.T) {
	t.Parallel()
	cases := []struct {
		pattern, text string
		want          bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"lines[*].error", "lines[12].error", true},
		{"lines[*].error", "lines[12].nodes.x.error", false},
		{"lines[*]*.error", "lines[12].nodes.x.error", true},
		{"*.message", "failure.message", true},
		{"*.message", "failure.codes", false},
		{"lines[0]", "lines0", false},
	}
	for _, c := range cases {
		test.Eq(t, c.want, matches(c.pattern, c.text), test.Sprintf("%s %s", c.pattern, c.text))
	}
}

func TestCompare_NamesPlaces(t *testing.T) {
	t.Parallel()
	parse := func(text string) any {
		v, err := value.Decode([]byte(text))
		must.NoError(t, err)
		return v
	}
	theirs := Outcome{Cases: []any{parse(`{"lines": [{"output": {"a": 1, "b": NaN}, "error": {"codes": ["UserError"]}}]}`)}}
	cases := []struct{ ours, want string }{
		{`{"lines": [{"output": {"a": 1, "b": NaN}, "error": {"codes": ["UserError"]}}]}`, ""},
		{`{"lines": [{"output": {"b": NaN, "a": 1}, "error": {"codes": ["UserError"]}}]}`, "lines[0].output (order of keys)"},
		{`{"lines": [{"output": {"a": 1.0, "b": NaN}, "error": {"codes": ["UserError"]}}]}`, "lines[0].output.a"},
		{`{"lines": [{"output": {"a": 1, "b": NaN}, "error": {"codes": ["SystemError"]}}]}`, "lines[0].error.codes[0]"},
		{`{"lines": []}`, "lines"},
		{`{"failure": null}`, "lines"},
	}
	for _, c := range cases {
		var places []string
		for _, d := range Compare(&Flow{Name: "f"}, theirs, Outcome{Cases: []any{parse(c.ours)}}) {
			places = append(places, d.Path)
		}
		test.Eq(t, c.want, strings.Join(places, " "), test.Sprint(c.ours))
	}
}

func TestLoad_RefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	cases := []struct{ text, want string }{
		{"cases: [{input: {}}]", `case 0: the field "input" is unknown`},
		{"case: []", `the field "case" is unknown`},
		{"cases: [{lines: {}}]", "case 0: lines is of type dict"},
		{"cases: [1]", "case 0 is not a mapping"},
	}
	for _, c := range cases {
		dir := t.TempDir()
		must.NoError(t, os.Mkdir(filepath.Join(dir, "f"), 0o700))
		must.NoError(t, os.WriteFile(filepath.Join(dir, "f", casesFile), []byte(c.text), 0o600))
		_, err := Load(dir)
		must.ErrorContains(t, err, fmt.Sprintf("read flow f: %s", c.want))
	}
}
