package worker

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// noteImport is Python that writes down that it was imported, and by whom.
const noteImport = "import os\nwith open('imports', 'a') as file: file.write(f'{os.getpid()}\\n')\n"

func lines(t testing.TB, dir, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		return nil
	}
	must.NoError(t, err)
	return strings.Fields(string(data))
}

// hold leases sessions until the flow has n workers.
func hold(t testing.TB, f *Flow, n int) []*Session {
	t.Helper()
	var held []*Session
	for range 50 {
		held = append(held, lease(t, f))
		if f.living() == n {
			return held
		}
		<-time.After(10 * time.Millisecond)
	}
	must.Eq(t, n, f.living())
	return held
}

func templatePID(f *Flow) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.template == nil {
		return 0
	}
	return f.template.process.pid
}

func TestTemplate_ImportsTheFlowOnce(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 3})
	dir := writeFlow(t, "a.py", script(noteImport+"state = []\n@tool\ndef f():\n    state.append(1)\n    return [os.getpid(), len(state)]\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
	pids := map[int64]bool{}
	for _, s := range hold(t, f, 3) {
		r := call(t, s, "n")
		must.Nil(t, r.Error)
		pids[r.Value.([]any)[0].(int64)] = true
	}
	test.MapLen(t, 3, pids)
	imports := lines(t, dir, "imports")
	must.SliceLen(t, 1, imports)
	test.Eq(t, imports[0], value.Str(int64(templatePID(f))))
	test.MapNotContainsKey(t, pids, int64(templatePID(f))) // it runs nothing itself
}

func TestTemplate_MakesTheFlowsOwnObjectInEveryWorker(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 2})
	dir := writeFlow(t, "flow.flex.yaml", "entry: a:A\n", "a.py", noteImport+"class A:\n    def __init__(self):\n        with open('made', 'a') as file: file.write(f'{os.getpid()}\\n')\n    def __call__(self): return os.getpid()\n")
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Script: &ScriptSpec{File: "flow.flex.yaml", Signature: true}})
	test.SliceLen(t, 1, lines(t, dir, "made"))
	hold(t, f, 2)
	test.SliceLen(t, 1, lines(t, dir, "imports"))
	made := lines(t, dir, "made")
	test.SliceLen(t, 2, made)
	test.SliceNotContains(t, made, value.Str(int64(templatePID(f))))
}

func TestTemplate_IsNotMadeOfWhatAForkWouldBreak(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"a thread":               "import threading, time\nthreading.Thread(target=lambda: time.sleep(3600), daemon=True).start()\n",
		"a socket":               "import socket\nkept = socket.create_server(('127.0.0.1', 0))\n",
		"an event loop":          "import asyncio\nloop = asyncio.new_event_loop()\n",
		"a database":             "import sqlite3\nconnection = sqlite3.connect('data.db')\nconnection.execute('create table if not exists t (x)')\n",
		"a file that is written": "kept = open('log', 'a')\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := startManager(t, Config{Workers: 2})
			dir := writeFlow(t, "a.py", script(noteImport+code+"@tool\ndef f(): return os.getpid()\n"))
			f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
			test.Eq(t, 0, templatePID(f))
			pids := map[string]bool{}
			for _, s := range hold(t, f, 2) {
				pids[value.Str(call(t, s, "n").Value)] = true
			}
			for _, pid := range lines(t, dir, "imports") { // every worker by itself
				test.MapContainsKey(t, pids, pid)
			}
			test.MapLen(t, 2, pids)
		})
	}
	t.Run("a file that is read is fine", func(t *testing.T) {
		t.Parallel()
		m := startManager(t, Config{})
		dir := writeFlow(t, "a.py", script("kept = open(__file__)\n@tool\ndef f(): return 1\n"))
		f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
		test.NotEq(t, 0, templatePID(f))
	})
}

func TestTemplate_IsReplacedWhenItDies(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 2})
	dir := writeFlow(t, "a.py", script(noteImport+"@tool\ndef f(): return os.getpid()\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
	s := lease(t, f)
	before := call(t, s, "n").Value
	old := templatePID(f)
	must.NoError(t, syscall.Kill(old, syscall.SIGKILL))
	gone(t, old)
	must.Eq(t, before, call(t, s, "n").Value)
	hold(t, f, 2)
	test.NotEq(t, old, templatePID(f))
	test.SliceLen(t, 2, lines(t, dir, "imports"))
	must.NoError(t, f.Close())
	gone(t, int(before.(int64)))
}

// BenchmarkWorker is the start of one more worker of a flow, by a fork and by an import.
func BenchmarkWorker(b *testing.B) {
	for name, code := range map[string]string{"forked": "", "imported": "kept = open('log', 'a')\n"} {
		b.Run(name, func(b *testing.B) {
			m := startManager(b, Config{})
			dir := writeFlow(b, "a.py", script(code+"@tool\ndef f(): return 1\n"))
			f := open(b, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
			for b.Loop() {
				p, _, err := f.load(b.Context())
				must.NoError(b, err)
				b.StopTimer()
				p.stop()
				b.StartTimer()
			}
		})
	}
}
