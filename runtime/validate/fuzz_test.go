package validate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// FuzzCheck validates flows of strangers with templates and requirements of theirs, without Python: it ends, soon, and each finding has
// a place that is there.
func FuzzCheck(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*/flow.dag.yaml")
	must.NoError(f, err)
	for _, file := range files {
		yaml, err := os.ReadFile(file)
		must.NoError(f, err)
		f.Add(string(yaml), "system:\n{{ text }}\n## user:\n{{ template }}", "a==1\n-r b\n")
	}
	f.Add("environment: {python_requirements_txt: r.txt}\nnodes: [{name: p, type: llm, api: chat, connection: openai, source: {type: code, path: ask.jinja2}, inputs: {model: m}}]", "x", "")
	f.Add("entry: ask:run\ninputs: {text: {type: string}, n: {type: image}}\ninit: {m: {type: OpenAIModelConfiguration}}\nsample: {init: {m: x}}\nnodes: []", "x", "")
	connections := some(f)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, yaml, template, requirements string) {
		for name, text := range map[string]string{"flow.dag.yaml": yaml, "ask.jinja2": template, "r.txt": requirements} {
			must.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		checkedSoon(t, Config{Dir: dir, Connections: connections})
	})
}

// FuzzCheckPrompty does the same with prompty files.
func FuzzCheckPrompty(f *testing.F) {
	const model = "model:\n  api: chat\n  configuration: {type: azure_openai, connection: azure}\n  parameters: {}\n"
	f.Add("---\nname: p\n" + model + "inputs:\n  text: {type: string}\n---\nsystem:\n{{ text }}\n# user:\n{{ txt }}")
	f.Add("---\r\n" + model + "sample: a.json\r\n---\r\nassistent:\r\n{% for")
	f.Add("---\nmodel: {configuration: [], parameters: 1}\ninputs: {a: {type: 1}, a: 2}\n---\n---\n")
	f.Add("system:\n")
	connections := some(f)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		must.NoError(t, os.WriteFile(filepath.Join(dir, "p.prompty"), []byte(text), 0o600))
		checkedSoon(t, Config{Dir: dir, Connections: connections})
	})
}

// checkedSoon checks a flow and holds what is so for every finding.
func checkedSoon(t *testing.T, c Config) {
	t.Helper()
	began := time.Now()
	v, err := New(c).Check(t.Context(), false)
	must.NoError(t, err)
	must.Less(t, 10*time.Second, time.Since(began))
	for _, p := range v.Problems {
		must.NotEq(t, "", p.Code)
		must.NotEq(t, "", p.Mend, must.Sprint(p))
		must.True(t, p.Severity == api.SeverityError || p.Severity == api.SeverityWarning)
		placed(t, c.Dir, p)
	}
}

// placed holds that a problem's place is in its file.
func placed(t *testing.T, dir string, p api.Problem) {
	t.Helper()
	if p.Line == 0 {
		return
	}
	text, err := os.ReadFile(filepath.Join(dir, p.File))
	must.NoError(t, err, must.Sprint(p))
	lines := strings.Split(string(lineEnds(text)), "\n")
	must.LessEq(t, len(lines), p.Line, must.Sprint(p))
	must.GreaterEq(t, 1, p.Column, must.Sprint(p))
	if line := lines[p.Line-1]; utf8.ValidString(line) && len(line) < maxShown {
		must.LessEq(t, 2+utf8.RuneCountInString(line), p.Column, must.Sprint(p))
	}
}
