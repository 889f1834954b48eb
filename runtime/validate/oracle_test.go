package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/connection"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// ask asks prompt flow's own packages about folders.
func ask[T any](t *testing.T, what string, folders []string) []T {
	t.Helper()
	args := append([]string{"testdata/oracle.py", what, "testdata/connections.json"}, folders...)
	cmd := exec.CommandContext(t.Context(), harness.Python(t), args...)
	cmd.Env = append(os.Environ(), "PF_HOME_DIRECTORY="+t.TempDir(), "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	must.NoError(t, err, must.Sprint(stderr.String()))
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	must.SliceLen(t, len(folders), lines, must.Sprint(stderr.String()))
	answers := make([]T, len(lines))
	for i, line := range lines {
		must.NoError(t, json.Unmarshal([]byte(line), &answers[i]), must.Sprint(line))
	}
	return answers
}

func startPython(t testing.TB) *worker.Manager {
	t.Helper()
	harness.Integration(t)
	m, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir()})
	must.NoError(t, err)
	t.Cleanup(func() { test.NoError(t, m.Close()) })
	return m
}

func connectionsFile(env connection.Lookup) (*connection.Set, error) {
	return connection.Load("testdata/connections.json", env)
}

// creation is what came of making an executor; nil when it went well.
type creation struct {
	Codes   []string `json:"codes"`
	Outer   string   `json:"outer"`
	Message string   `json:"message"`
}

// wrongFlows says where each flow of testdata/wrong is wrong. They are the rows of prompt flow's own collection of wrong flows, with
// flows of ours.
var wrongFlows = map[string]struct{ class, place string }{
	"llm_with_wrong_connection":                      {"InvalidConnectionType", "flow.dag.yaml:14:15"},
	"node_names_duplicated":                          {"DuplicateNodeName", "flow.dag.yaml:16:3"},
	"source_missing_template":                        {"InvalidSource", "flow.dag.yaml:13:11"},
	"source_missing_python":                          {"InvalidSource", "flow.dag.yaml:13:11"},
	"node_reference_not_found":                       {"NodeReferenceNotFound", "flow.dag.yaml:22:12"},
	"node_circular_dependency":                       {"NodeCircularDependency", "flow.dag.yaml:15:12"},
	"flow_input_reference_invalid":                   {"InputReferenceNotFound", "flow.dag.yaml:15:12"},
	"flow_output_reference_invalid":                  {"EmptyOutputReference", "flow.dag.yaml:7:16"},
	"outputs_reference_not_valid":                    {"OutputReferenceNotFound", "flow.dag.yaml:7:16"},
	"outputs_with_invalid_flow_inputs_ref":           {"OutputReferenceNotFound", "flow.dag.yaml:10:16"},
	"invalid_connection":                             {"GetConnectionError", "flow.dag.yaml:14:15"},
	"tool_type_missing":                              {"NotImplementedError", "flow.dag.yaml:9:3"},
	"wrong_module":                                   {"FailedToImportModule", "flow.dag.yaml:20:11"},
	"wrong_api":                                      {"APINotFound", "flow.dag.yaml:15:8"},
	"invalid_activate_config":                        {"FlowDefinitionError", "flow.dag.yaml:16:3"},
	"nodes_cycle":                                    {"NodeCircularDependency", "flow.dag.yaml:15:12"},
	"nodes_cycle_with_activate":                      {"NodeCircularDependency", "flow.dag.yaml:17:11"},
	"wrong_node_reference":                           {"NodeReferenceNotFound", "flow.dag.yaml:22:12"},
	"non_aggregation_reference_aggregation":          {"InvalidNodeReference", "flow.dag.yaml:30:12"},
	"aggregation_activate_reference_non_aggregation": {"InvalidNodeReference", "flow.dag.yaml:24:11"},
	"wrong_tool_in_package_tools":                    {"PackageToolNotFoundError", "flow.dag.yaml:13:11"},
	"wrong_package_in_package_tools":                 {"PackageToolNotFoundError", "flow.dag.yaml:13:11"},
	"assistant_package_tool_wrong_source_type":       {"NodeInputValidationError", "flow.dag.yaml:16:16"},
	"assistant_package_tool_wrong_tool":              {"NodeInputValidationError", "flow.dag.yaml:16:16"},
	"assistant_python_tool_wrong_path":               {"NodeInputValidationError", "flow.dag.yaml:16:16"},
	"prompt_tool_with_duplicated_inputs":             {"NodeInputValidationError", "ask.jinja2:2:4"},
	"llm_tool_with_duplicated_inputs":                {"NodeInputValidationError", "ask.jinja2:3:4"},
	// Prompt flow takes these.
	"flow_output_unserializable": {},
	"node_condition_conflict":    {},
	"wrong_provider":             {},
}

// TestWrongFlows holds three to the same class: prompt flow's executor when it is made, ours, and what validation finds at its place.
func TestWrongFlows(t *testing.T) {
	m := startPython(t)
	var names, folders []string
	for name := range wrongFlows {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		folder, err := filepath.Abs(filepath.Join("testdata/wrong", name))
		must.NoError(t, err)
		folders = append(folders, folder)
	}
	all, err := filepath.Glob("testdata/wrong/*")
	must.NoError(t, err)
	must.SliceLen(t, len(all), names)
	theirs := ask[*creation](t, "create", folders)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			want := wrongFlows[name]
			if want.class == "" {
				must.Nil(t, theirs[i])
			} else {
				must.NotNil(t, theirs[i])
				must.Eq(t, want.class, theirs[i].Codes[len(theirs[i].Codes)-1])
			}
			ours := create(t, m, folders[i])
			sameCreation(t, theirs[i], ours)
			found := validated(t, m, folders[i])
			if want.class == "" {
				test.Eq(t, 0, found.Count(api.SeverityError))
				return
			}
			at := slices.IndexFunc(found.Problems, func(p api.Problem) bool { return slices.Equal(p.Codes, theirs[i].Codes) })
			must.GreaterEq(t, 0, at, must.Sprint(shown(found)))
			p := found.Problems[at]
			test.Eq(t, want.place, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
			test.NotEq(t, "", p.Mend)
			test.Eq(t, api.SeverityError, p.Severity)
		})
	}
}

// create makes an executor of ours.
func create(t *testing.T, m *worker.Manager, folder string) *creation {
	t.Helper()
	x, err := run.Load(t.Context(), run.Config{Digest: filepath.Base(folder), Dir: folder, Workers: run.FromManager(m), ConnectionsFile: "testdata/connections.json", LineTimeout: time.Minute})
	if err == nil {
		x.Close()
		return nil
	}
	var e *api.Error
	must.True(t, errors.As(err, &e), must.Sprintf("%v", err))
	test.NotNil(t, e.Location)
	return &creation{Codes: e.Chain(), Message: e.Message}
}

// ownWords are the parts of messages that name what is there, which each says in its own way.
var ownWords = regexp.MustCompile(`(?s)(Get connection '.*' for node '.*' error: ).*`)

func sameCreation(t *testing.T, theirs, ours *creation) {
	t.Helper()
	if theirs == nil {
		must.Nil(t, ours)
		return
	}
	must.NotNil(t, ours)
	test.Eq(t, theirs.Codes, ours.Codes)
	test.Eq(t, ownWords.ReplaceAllString(theirs.Message, "$1"), ownWords.ReplaceAllString(ours.Message, "$1"))
}

func validated(t *testing.T, m *worker.Manager, folder string) *api.Validation {
	t.Helper()
	c := m.NewChecker()
	defer c.Close()
	v, err := New(Config{Dir: folder, Python: c, Connections: connectionsFile}).Check(t.Context(), false)
	must.NoError(t, err)
	test.SliceEmpty(t, v.Unchecked)
	return v
}

// TestTools_areThoseOfPromptFlow compares the metadata of tools with what prompt flow's development kit writes into flow.tools.json.
func TestTools_areThoseOfPromptFlow(t *testing.T) {
	m := startPython(t)
	var folders []string
	for _, pattern := range []string{"../../e2e/flows/*/flow.dag.yaml", "../run/testdata/flows/*/flow.dag.yaml", "testdata/tools/*/flow.dag.yaml"} {
		found, err := filepath.Glob(pattern)
		must.NoError(t, err)
		must.SliceNotEmpty(t, found)
		for _, f := range found {
			dir := t.TempDir() // prompt flow writes into it
			must.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Dir(f))))
			folders = append(folders, dir)
		}
	}
	theirs := ask[struct {
		Tools  any               `json:"tools"`
		Errors map[string]string `json:"errors"`
	}](t, "tools", folders)
	for i, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			c := m.NewChecker()
			defer c.Close()
			v, err := New(Config{Dir: folder, Python: c, Connections: connectionsFile}).Check(t.Context(), true)
			must.NoError(t, err)
			var ours any
			must.NoError(t, json.Unmarshal(v.Tools, &ours), must.Sprint(string(v.Tools)))
			test.Eq(t, theirs[i].Tools, ours)
			messages := map[string]string{}
			for source, e := range v.ToolErrors {
				messages[source] = e.Message
			}
			for source, message := range theirs[i].Errors {
				theirs[i].Errors[source] = strings.ReplaceAll(message, folder+"/", "")
			}
			test.Eq(t, theirs[i].Errors, messages)
		})
	}
}

// TestSchema_isNotLaxerThanPromptFlow holds that whatever `pf flow validate` finds is found here, in the line of what it names.
func TestSchema_isNotLaxerThanPromptFlow(t *testing.T) {
	m := startPython(t)
	const end = "nodes:\n- name: p\n  type: prompt\n  source: {type: code, path: p.jinja2}\n"
	type lines map[string]int
	tests := []struct {
		name, flow string
		want       lines // by what prompt flow names
	}{
		{"nothing wrong", end, nil},
		{"inputs and outputs without type", "inputs:\n  a: {default: x}\noutputs:\n  o: {reference: x}\n" + end, lines{"inputs.a.type": 2, "outputs.o.type": 4}},
		{"an input that is no mapping", "inputs:\n  a: x\n" + end, lines{"inputs.a": 2}},
		{"inputs that are no mapping", "inputs: [a]\n" + end, lines{"inputs": 1}},
		{"texts that are none", "description: 5\ndisplay_name: [x]\n" + end, lines{"description": 1, "display_name": 2}},
		{"a wrong type of flow", "type: standart\n" + end, lines{"type": 1}},
		{"a wrong language", "language: go\n" + end, lines{"language": 1}},
		{"tags", "tags: {a: 1}\n" + end, lines{"tags.a": 1}},
		{"tags that are a list", "tags: [a]\n" + end, lines{"tags": 1}},
		{"environment", "environment: x\nenvironment_variables: [x]\n" + end, lines{"environment": 1, "environment_variables": 2}},
		{"truth", "inputs:\n  a: {type: string, is_chat_input: perhaps}\n" + end, lines{"inputs.a.is_chat_input": 2}},
		{"a reference that is a list", "outputs:\n  a: {type: string, reference: [x]}\n" + end, lines{"outputs.a.reference": 2}},
		{"node variants that are none", end + "node_variants:\n  p: x\n", lines{"node_variants.p": 6}},
		{"sources that are not there", strings.Replace(end, "p.jinja2", "q.jinja2", 1) + "- name: q\n  type: python\n  source: {type: code, path: q.py}\n",
			lines{"nodes.0.source.path": 4, "nodes.1.source.path": 7}},
		{"a template that is none", strings.Replace(end, "p.jinja2", "broken.jinja2", 1), lines{"nodes.0.source.path": 0}},
		{"Python that is none", end + "- name: q\n  type: python\n  source: {type: code, path: broken.py}\n", lines{"nodes.1.source.path": 0}},
	}
	folders := make([]string, len(tests))
	for i, tc := range tests {
		folders[i] = write(t, "flow.dag.yaml", tc.flow, "p.jinja2", "", "broken.jinja2", "{% if", "broken.py", "def f(:\n")
	}
	theirs := ask[struct {
		Result string `json:"result"`
		Errors []struct {
			Path string `json:"path"`
		} `json:"errors"`
	}](t, "validate", folders)
	for i, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			found := validated(t, m, folders[i])
			test.Eq(t, theirs[i].Result, found.Result)
			for _, e := range theirs[i].Errors {
				line, ok := tc.want[e.Path]
				must.True(t, ok, must.Sprint(theirs[i]))
				test.True(t, slices.ContainsFunc(found.Problems, func(p api.Problem) bool {
					own := p.Line == line && p.File == "flow.dag.yaml" || line == 0 && strings.HasPrefix(p.File, "broken.")
					return p.Severity == api.SeverityError && own
				}), test.Sprintf("%s: %v", e.Path, shown(found)))
			}
			test.Eq(t, len(tc.want), len(theirs[i].Errors))
		})
	}
}
