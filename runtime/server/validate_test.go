package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/api/bundle"
	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// validation asks a server to validate and requires an answer.
func validation(t *testing.T, h *httptest.Server, request api.ValidateRequest) *api.Validation {
	t.Helper()
	body, err := json.Marshal(request)
	must.NoError(t, err)
	return decodeValidation(t, ask(t, h, "POST", "/v1/validate", string(body)))
}

func decodeValidation(t *testing.T, a answer) *api.Validation {
	t.Helper()
	must.Eq(t, http.StatusOK, a.status, must.Sprint(a.body))
	v := &api.Validation{}
	must.NoError(t, json.Unmarshal([]byte(a.body), v), must.Sprint(a.body))
	return v
}

// shown is a validation as lines of place and code.
func shown(v *api.Validation) []string {
	lines := []string{}
	for _, p := range v.Problems {
		lines = append(lines, fmt.Sprintf("%s:%d:%d %s", p.File, p.Line, p.Column, p.Code))
	}
	return lines
}

func file(path, content string) api.File { return api.File{Path: path, Content: []byte(content)} }

func TestValidate_aBundleAndItsChanges(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, "", nil)
	digest, body := packed(t, echoFlow)
	failure := ask(t, h, "POST", "/v1/validate", `{"flow":"`+digest+`"}`)
	test.Eq(t, http.StatusFailedDependency, failure.status)
	must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)

	v := validation(t, h, api.ValidateRequest{Flow: digest})
	test.Eq(t, api.ResultSucceeded, v.Result)
	test.Eq(t, digest, v.Flow)
	test.SliceEmpty(t, v.Problems)

	changed := api.ValidateRequest{Flow: digest, Files: []api.File{file("p.jinja2", "x\n  {{ m }}"), file("new/a.txt", "")}}
	for range 2 {
		v = validation(t, h, changed)
		test.Eq(t, []string{"flow.dag.yaml:9:74 UnusedNodeInput", "p.jinja2:2:6 TemplateInputMissing"}, shown(v))
		test.Eq(t, "  {{ m }}", v.Problems[1].Text)
	}
	changed.Files = append(changed.Files[1:], api.File{Path: "p.jinja2", Removed: true})
	v = validation(t, h, changed)
	test.Eq(t, api.ResultFailed, v.Result)
	test.Eq(t, []string{"flow.dag.yaml:9:54 InvalidSource"}, shown(v))

	// Without changes it is the bundle again, and the bundle itself has never changed.
	test.SliceEmpty(t, validation(t, h, api.ValidateRequest{Flow: digest}).Problems)
	text, err := os.ReadFile(filepath.Join(s.flows.dir, strings.TrimPrefix(digest, "sha256:"), "p.jinja2"))
	must.NoError(t, err)
	test.Eq(t, "n={{ n }}", string(text))
	test.MapLen(t, 1, s.sessions.all)
}

func TestValidate_filesAlone(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, "", nil)
	v := validation(t, h, api.ValidateRequest{Files: []api.File{file("flow.dag.yaml", echoFlow), file("p.jinja2", "{{ n }}")}})
	test.SliceEmpty(t, v.Problems)
	v = validation(t, h, api.ValidateRequest{Files: []api.File{file("a.py", "x = 1")}})
	test.Eq(t, api.ResultFailed, v.Result)
	test.StrContains(t, v.Problems[0].Message, "Have found neither flow.dag.yaml")
	s.sessions.close()
	left, err := os.ReadDir(s.validations())
	must.NoError(t, err)
	test.SliceEmpty(t, left)
}

func TestValidate_aBundleThatIsTheBody(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", nil)
	digest, body := packed(t, echoFlow)
	for range 2 {
		v := decodeValidation(t, ask(t, h, "POST", "/v1/validate", string(body), "Content-Type", bundle.MediaType))
		test.Eq(t, digest, v.Flow)
		test.Eq(t, api.ResultSucceeded, v.Result)
	}
	a := ask(t, h, "POST", "/v1/validate", "no bundle", "Content-Type", bundle.MediaType)
	test.Eq(t, http.StatusBadRequest, a.status)
	test.Eq(t, "InvalidBundle", a.failure(t).Class())
}

func TestValidate_refuses(t *testing.T) {
	t.Parallel()
	_, h := newServer(t, "", func(c *Config) { c.MaxBody = 1000 })
	digest, body := packed(t, echoFlow)
	must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)
	with := func(path string) string {
		return fmt.Sprintf(`{"flow":%q,"files":[{"path":%q,"content":"eA=="}]}`, digest, path)
	}
	tests := []struct {
		name, body, says string
		status           int
	}{
		{"nothing", `{}`, "names no flow and has no files", 400},
		{"no JSON", `{"flow"`, "is not a valid request", 400},
		{"an unknown field", `{"flows":"x"}`, `unknown field "flows"`, 400},
		{"no digest", `{"flow":"sha256:1"}`, "is not the digest of a bundle", 400},
		{"too much", `{"flow":"` + strings.Repeat("x", 1000) + `"}`, "more than 1000 bytes", 413},
		{"a path upwards", with("../x"), "leaves the flow's folder", 400},
		{"a path inside out", with("a/../../x"), "leaves the flow's folder", 400},
		{"an absolute path", with("/etc/passwd"), "leaves the flow's folder", 400},
		{"a path that is not plain", with("./x"), "not in its plain form", 400},
		{"the folder itself", with("."), "not in its plain form", 400},
		{"a long path", with(strings.Repeat("a/", 40) + "x"), "too long", 400},
		{"a path twice", `{"files":[{"path":"a"},{"path":"a"}]}`, "twice", 400},
		{"a file below a file", with("p.jinja2/x"), "cannot be written", 400},
		{"a folder", `{"files":[{"path":"a/b"},{"path":"a"}]}`, "is a folder of the flow", 400},
		{"a broken variable", `{"flow":"` + digest + `","environment_variables":{"A=":"b"}}`, "environment variable", 400},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(t, h, "POST", "/v1/validate", tc.body)
			test.Eq(t, tc.status, a.status)
			test.StrContains(t, a.failure(t).Message, tc.says)
		})
	}
	// None of it has hurt the flow.
	test.SliceEmpty(t, validation(t, h, api.ValidateRequest{Flow: digest}).Problems)
}

func TestValidate_keepsFewSessions(t *testing.T) {
	t.Parallel()
	s, h := newServer(t, "", nil)
	var running sync.WaitGroup
	for i := range 3 * maxSessions {
		digest, body := packed(t, fmt.Sprintf("# %d\n%s", i, echoFlow))
		must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, string(body)).status)
		for range 2 {
			running.Go(func() { test.SliceEmpty(t, validation(t, h, api.ValidateRequest{Flow: digest}).Problems) })
		}
	}
	running.Wait()
	s.sessions.mu.Lock()
	test.LessEq(t, maxSessions, len(s.sessions.all))
	s.sessions.mu.Unlock()
	s.sessions.close()
	left, err := os.ReadDir(s.validations())
	must.NoError(t, err)
	test.SliceEmpty(t, left)
}

func TestValidate_withPython(t *testing.T) {
	harness.Integration(t)
	s, h := newServer(t, "", nil)
	manager, err := worker.Start(t.Context(), worker.Config{Python: harness.Python(t), Dir: t.TempDir()})
	must.NoError(t, err)
	t.Cleanup(func() { s.sessions.close(); must.NoError(t, manager.Close()) })
	s.workers = manager

	files := []api.File{file("flow.dag.yaml", pythonFlow), file("p.py", pythonTool)}
	v := validation(t, h, api.ValidateRequest{Files: files, Tools: true})
	test.SliceEmpty(t, v.Problems)
	test.Eq(t, `{"package":{},"code":{"p.py":{"type":"python","inputs":{"n":{"type":["int"]}},"source":"p.py","function":"double"}}}`, compact(t, v.Tools))

	dir := t.TempDir()
	for _, f := range files {
		must.NoError(t, os.WriteFile(filepath.Join(dir, f.Path), f.Content, 0o600))
	}
	var packed bytes.Buffer
	digest, _, err := bundle.Pack(t.Context(), dir, &packed)
	must.NoError(t, err)
	must.Eq(t, http.StatusCreated, ask(t, h, "PUT", "/v1/flows/"+digest, packed.String()).status)
	test.SliceEmpty(t, validation(t, h, api.ValidateRequest{Flow: digest}).Problems)
	for i := range 3 {
		broken := strings.Repeat("\n", i) + pythonTool + "\ndef oops(:\n"
		v = validation(t, h, api.ValidateRequest{Flow: digest, Files: []api.File{file("p.py", broken)}})
		test.Eq(t, []string{fmt.Sprintf("p.py:%d:10 PythonLoadError", 8+i)}, shown(v))
		test.StrNotContains(t, v.Problems[0].Message, s.validations())
	}
	v = validation(t, h, api.ValidateRequest{Flow: digest})
	test.SliceEmpty(t, v.Problems)
	v = validation(t, h, api.ValidateRequest{Flow: digest, Files: []api.File{file("notes.txt", "x")}})
	test.Eq(t, 1, v.Reused)
	test.Eq(t, 0, v.Checked)
}

func compact(t *testing.T, document []byte) string {
	t.Helper()
	var b bytes.Buffer
	must.NoError(t, json.Compact(&b, document))
	return b.String()
}

// FuzzSession changes files of strangers' names in a session's folder: nothing outside of it changes, and without changes the folder is the
// bundle again.
func FuzzSession(f *testing.F) {
	f.Add("flow.dag.yaml\nsub/a.py", "x", "sub/a.py\nnew")
	f.Add("../out\nsub", "y", "sub/a.py/b\n/etc/passwd")
	f.Add("sub/a.py/b\na/../../b", "", "C:\\x\n.\n..")
	f.Fuzz(func(t *testing.T, first, content, second string) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "flow")
		bundled := map[string]string{"flow.dag.yaml": "nodes: []", "sub/a.py": "a"}
		for name, text := range bundled {
			must.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		s := &session{dir: dir, changed: map[string][32]byte{}, originals: map[string]*[]byte{}}
		for i, names := range []string{first, second, ""} {
			request := &api.ValidateRequest{}
			for j, name := range strings.Split(names, "\n") {
				if names != "" {
					request.Files = append(request.Files, api.File{Path: name, Content: []byte(content), Removed: (i+j)%2 == 1})
				}
			}
			if names != "" && checkValidate(request) != nil {
				continue
			}
			_ = s.apply(request.Files) // a name that is a folder's is refused
		}
		left, err := os.ReadDir(parent)
		must.NoError(t, err)
		must.SliceLen(t, 1, left)
		got := map[string]string{}
		must.NoError(t, filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			data, err := os.ReadFile(name)
			relative, _ := filepath.Rel(dir, name)
			got[relative] = string(data)
			return err
		}))
		must.Eq(t, bundled, got)
	})
}
