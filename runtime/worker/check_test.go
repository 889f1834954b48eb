package worker

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// checker is a checker with real Python, and what checks the nodes of a folder.
func checker(t *testing.T, m *Manager, dir string) func(timeout time.Duration, jobs ...CheckJob) []CheckResult {
	t.Helper()
	c := m.NewChecker()
	t.Cleanup(c.Close)
	return func(timeout time.Duration, jobs ...CheckJob) []CheckResult {
		t.Helper()
		results, err := c.Check(within(t, time.Minute), CheckSpec{Dir: dir, Jobs: jobs, Timeout: timeout})
		must.NoError(t, err)
		return results
	}
}

func nodeJob(name, path string, inputs ...any) CheckJob {
	return CheckJob{Kind: CheckNode, Node: node(name, path, inputs...)}
}

func TestChecker_tellsSignatures(t *testing.T) {
	m := startManager(t, Config{})
	dir := writeFlow(t, "a.py", script(`
from enum import Enum
from promptflow.connections import CustomConnection

class Mood(Enum):
    GOOD = "good"
    BAD = "bad"

@tool
def f(n: int, c: CustomConnection, m: Mood = Mood.GOOD, *, extra=None, **rest): return n
`))
	got := checker(t, m, dir)(0, nodeJob("a", "a.py", "n", "5"))[0]
	must.Nil(t, got.Tool.Error)
	test.Eq(t, []string{"int"}, got.Inputs["n"].Type)
	test.Eq(t, []string{"CustomConnection"}, got.Inputs["c"].Type)
	test.Eq(t, []any{"good", "bad"}, got.Inputs["m"].Enum)
	test.True(t, got.Tool.Kwargs)
	test.Eq(t, Place{File: "a.py", Line: 11, Name: "f"}, *got.Function)
	test.Eq(t, []string{"a.py"}, got.Files)
}

func TestChecker_findsThePlaceOfAMistake(t *testing.T) {
	m := startManager(t, Config{})
	dir := writeFlow(t,
		"syntax.py", "def f(:\n    pass\n",
		"missing.py", script("\nif True:\n    import nomodule.at_all\n"),
		"deep.py", script("import helper\n"), "helper.py", "x = 1\n\ny = x + 'é' + 1 / 0\n",
		"two.py", script("@tool\ndef a(): pass\n\n@tool\ndef b(): pass\n"),
		"none.py", "def a(): pass\n",
		"exits.py", "import sys\nsys.exit(3)\n",
	)
	check := checker(t, m, dir)
	tests := []struct {
		path, class, cause string
		place              *Place
	}{
		{"syntax.py", "PythonLoadError", "SyntaxError", &Place{File: "syntax.py", Line: 1, Column: 7}},
		{"missing.py", "PythonLoadError", "ModuleNotFoundError", &Place{File: "missing.py", Line: 4, Column: 5}},
		{"deep.py", "PythonLoadError", "TypeError", &Place{File: "helper.py", Line: 3, Column: 5}},
		{"two.py", "MultipleToolsDefined", "MultipleToolsDefined", nil},
		{"none.py", "NoToolDefined", "NoToolDefined", nil},
		{"exits.py", "ResolveToolError", "SystemExit", &Place{File: "exits.py", Line: 2, Column: 1}},
		{"gone.py", "InvalidSource", "InvalidSource", nil},
	}
	var jobs []CheckJob
	for _, tc := range tests {
		jobs = append(jobs, nodeJob("n", tc.path))
	}
	results := check(0, jobs...)
	for i, tc := range tests {
		got := results[i]
		must.NotNil(t, got.Tool, must.Sprint(tc.path, got))
		must.NotNil(t, got.Tool.Error, must.Sprint(tc.path))
		test.Eq(t, tc.cause, got.Cause.Class, test.Sprint(tc.path))
		test.Eq(t, tc.place, got.Place, test.Sprint(tc.path))
		if tc.class != "ResolveToolError" {
			test.Eq(t, tc.class, got.Tool.Error.Class(), test.Sprint(tc.path))
		}
	}
	test.Eq(t, "nomodule", results[1].Cause.Name)
	test.SliceContains(t, results[2].Files, "helper.py")
	test.Eq(t, []Outline{{Name: "a", Line: 3, Column: 1, Tool: true}, {Name: "b", Line: 6, Column: 1, Tool: true}}, results[3].Outline)
}

func TestChecker_survivesWhatAnImportDoes(t *testing.T) {
	m := startManager(t, Config{})
	dir := writeFlow(t,
		"crash.py", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
		"hang.py", "import time\nwhile True: time.sleep(1)\n",
		"fork.py", script("import os\nif os.fork() == 0:\n    import time; time.sleep(600)\n@tool\ndef f(): pass\n"),
		"prints.py", script("import os\nprint('x' * 1000)\nos.write(1, b'y' * 1000)\n@tool\ndef f(): pass\n"),
		"thread.py", script("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n@tool\ndef f(): pass\n"),
	)
	check := checker(t, m, dir)
	began := time.Now()
	results := check(300*time.Millisecond, nodeJob("c", "crash.py"), nodeJob("h", "hang.py"), nodeJob("f", "fork.py"), nodeJob("p", "prints.py"), nodeJob("t", "thread.py"))
	test.Less(t, 20*time.Second, time.Since(began))
	test.StrContains(t, results[0].Crash, "SIGSEGV")
	test.StrContains(t, results[1].Crash, "did not end within 0.3 seconds")
	for _, r := range results[2:] {
		must.NotNil(t, r.Tool, must.Sprint(r))
		test.Nil(t, r.Tool.Error)
	}
	// The process that stays has run none of it.
	again := check(0, nodeJob("p", "prints.py"))
	test.Nil(t, again[0].Tool.Error)
}

func TestChecker_importsOnceWhatIsNotTheFlows(t *testing.T) {
	outside := t.TempDir()
	count := filepath.Join(outside, "count")
	must.NoError(t, os.WriteFile(filepath.Join(outside, "slowlib.py"), []byte("open("+quote(count)+", 'a').write('x')\n"), 0o600))
	m := startManager(t, Config{Env: append(cleanEnviron(os.Environ()), "PYTHONPATH="+outside)})
	dir := writeFlow(t, "a.py", script("import slowlib, helper\n@tool\ndef f(): return helper.x\n"), "helper.py", "x = 1\n")
	check := checker(t, m, dir)
	imports := func() int {
		data, err := os.ReadFile(count)
		must.NoError(t, err)
		return len(data)
	}
	for range 3 {
		test.Nil(t, check(0, nodeJob("a", "a.py"))[0].Tool.Error)
	}
	test.Eq(t, 2, imports()) // in the first child, then in the process that stays
	must.NoError(t, os.WriteFile(filepath.Join(dir, "helper.py"), []byte("oops = \n"), 0o600))
	got := check(0, nodeJob("a", "a.py"))[0]
	must.NotNil(t, got.Tool.Error)
	test.Eq(t, "helper.py", got.Place.File)
	test.Eq(t, 2, imports())
}

func TestChecker_knowsWhatANodeWasMadeOf(t *testing.T) {
	m := startManager(t, Config{})
	dir := writeFlow(t,
		"a.py", script("import shared\nfrom pack import inner\nopen('a.txt').read()\n@tool\ndef f(): pass\n"), "a.txt", "x",
		"b.py", script("import shared\n@tool\ndef f(): pass\n"),
		"c.py", script("@tool\ndef f(): pass\n"),
		"d.py", script("import importlib\nimportlib.import_module('shared')\n@tool\ndef f(): pass\n"),
		"shared.py", "import deep\nopen('shared.txt').read()\n", "shared.txt", "y", "deep.py", "", "pack/__init__.py", "", "pack/inner.py", "", "other.py", "",
	)
	var files [][]string
	for _, r := range checker(t, m, dir)(0, nodeJob("a", "a.py"), nodeJob("b", "./b.py"), nodeJob("c", "c.py"), nodeJob("d", "d.py")) {
		must.NotNil(t, r.Tool, must.Sprint(r))
		must.Nil(t, r.Tool.Error, must.Sprint(r.Tool.Error))
		files = append(files, r.Files)
	}
	test.Eq(t, []string{"a.py", "a.txt", "deep.py", "pack/__init__.py", "pack/inner.py", "shared.py", "shared.txt"}, files[0])
	test.SliceContainsAll(t, []string{"a.txt", "b.py", "deep.py", "shared.py", "shared.txt"}, files[1])
	test.Eq(t, []string{"c.py"}, files[2])
	test.SliceContains(t, files[3], "shared.py")
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "\\'") + "'" }

func TestChecker_templates(t *testing.T) {
	m := startManager(t, Config{})
	check := checker(t, m, t.TempDir())
	results := check(0,
		CheckJob{Kind: CheckTemplate, Text: "hello\n{% for x in list %}{{ x.name }} {{ other }}{% endfor %}"},
		CheckJob{Kind: CheckTemplate, Text: "a\nb {% if %}\n"},
		CheckJob{Kind: CheckTemplate, Text: "{{ x | nofilter }}"},
	)
	variable := func(name string, line, column int) TemplateVariable {
		return TemplateVariable{Variable: Variable{Name: name, Type: "string"}, Line: line, Column: column}
	}
	test.Eq(t, []TemplateVariable{variable("list", 2, 13), variable("other", 2, 36)}, results[0].Variables)
	test.Eq(t, "TemplateSyntaxError", results[1].Class)
	test.Eq(t, 2, results[1].Line)
	test.Eq(t, "TemplateAssertionError", results[2].Class)
}

func TestChecker_requirements(t *testing.T) {
	m := startManager(t, Config{})
	check := checker(t, m, t.TempDir())
	got := check(0, CheckJob{Kind: CheckRequirements, Lines: []RequirementLine{
		{1, "promptflow-core"}, {2, "no-such-package>=1"}, {3, "jinja2<1"}, {4, "!!"}, {5, "colorama; sys_platform == 'win32'"}, {6, "Jinja2>=3"},
	}})[0].Findings
	must.SliceLen(t, 3, got)
	test.Eq(t, "missing", got[0].Kind)
	test.Eq(t, "no-such-package", got[0].Name)
	test.Eq(t, "version", got[1].Kind)
	test.Eq(t, "<1", got[1].Wanted)
	test.Eq(t, 4, got[2].Line)
	test.Eq(t, "invalid", got[2].Kind)
}

func TestChecker_endsWithItsContextAndItsManager(t *testing.T) {
	m := startManager(t, Config{})
	dir := writeFlow(t, "hang.py", "while True: pass\n", "ok.py", script("@tool\ndef f(): pass\n"))
	c := m.NewChecker()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := c.Check(ctx, CheckSpec{Dir: dir, Jobs: []CheckJob{nodeJob("h", "hang.py")}})
	must.ErrorIs(t, err, context.DeadlineExceeded)
	results, err := c.Check(within(t, time.Minute), CheckSpec{Dir: dir, Jobs: []CheckJob{nodeJob("o", "ok.py")}})
	must.NoError(t, err)
	test.Nil(t, results[0].Tool.Error)
	must.NoError(t, m.Close())
	_, err = c.Check(within(t, time.Minute), CheckSpec{Dir: dir, Jobs: []CheckJob{nodeJob("o", "ok.py")}})
	must.ErrorIs(t, err, ErrClosed)
}
