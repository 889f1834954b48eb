package command

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
)

func TestRun_takes_a_flow_file(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"my.prompty", "other.flow.yaml"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, name, "entry: a:b\n")
			server := newCanned(t, shared(answer{200, completed()}))
			code, _, stderr := invoke("run", path, "-address", server.URL)
			must.Eq(t, exitOK, code, must.Sprint(stderr))
			test.Eq(t, name, server.submission(t).FlowFile)
		})
	}
}

func TestRun_packs_what_the_flow_includes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"flow/flow.flex.yaml": "entry: a:b\nadditional_includes:\n- ../shared\n- ../a.py\n", "flow/a.py": "mine", "a.py": "theirs", "shared/b.py": "b",
	} {
		must.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	answers := shared(answer{424, nil}, answer{200, completed()})
	answers["PUT /v1/flows"] = []answer{{201, nil}}
	server := newCanned(t, answers)
	code, _, stderr := invoke("run", filepath.Join(dir, "flow"), "-address", server.URL)
	must.Eq(t, exitOK, code, must.Sprint(stderr))
	test.StrContains(t, stderr, "warning: Found duplicate file in additional includes")
	test.StrContains(t, stderr, "will overwrite a.py")
	request := server.submission(t)
	target := filepath.Join(t.TempDir(), "flow")
	must.NoError(t, bundle.Unpack(t.Context(), bytes.NewReader(server.asked[2].body), target, request.Flow, bundle.DefaultLimits))
	for name, want := range map[string]string{"a.py": "theirs", "shared/b.py": "b"} {
		content, err := os.ReadFile(filepath.Join(target, name))
		must.NoError(t, err)
		test.Eq(t, want, string(content))
	}
}

func TestRun_refuses_includes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ yaml, says string }{
		"that are not there":    {"nodes: []\nadditional_includes:\n- ../gone.py\n", "flow.dag.yaml:3:3: Unable to find additional include ../gone.py."},
		"that are no list":      {"additional_includes: 5\n", "flow.dag.yaml:1:1: The value of 'additional_includes' is not a list"},
		"of a file that is not": {"a: [", "Error while parsing yaml file: flow.dag.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, "flow.dag.yaml", tc.yaml)
			server := newCanned(t, shared(answer{200, completed()}))
			code, _, stderr := invoke("run", filepath.Dir(path), "-address", server.URL)
			test.Eq(t, exitFailure, code)
			test.StrContains(t, stderr, tc.says)
			test.SliceEmpty(t, server.calls())
		})
	}
}
