package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// gone waits until a process has ended (a zombie counts: its parent may be a subreaper of the machine).
func gone(t testing.TB, pid int) {
	t.Helper()
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return !running(pid) }), wait.Timeout(20*time.Second), wait.Gap(20*time.Millisecond)),
		must.Sprintf("process %d is still there", pid))
}

func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0] != "Z" && fields[0] != "X"
}

func zygotePID(m *Manager) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.zygote.cmd.Process.Pid
}

// badTools is a flow whose one tool does as it is told.
func badTools(t testing.TB) FlowSpec {
	dir := writeFlow(t, "bad.py", script(`
import asyncio, ctypes, os, signal, sys, time, threading
@tool
def bad(do: str):
    print("before", do)
    if do == "value": raise ValueError("no: " + do)
    if do == "chained":
        try:
            {}["key"]
        except KeyError as e:
            raise RuntimeError("outer") from e
    if do == "exit": sys.exit(7)
    if do == "interrupt": raise KeyboardInterrupt("mine")
    if do == "str": raise Unprintable()
    if do == "_exit": os._exit(9)
    if do == "orphan":
        if os.fork() == 0: time.sleep(3600)
        os._exit(5)
    if do == "segfault": ctypes.string_at(0)
    if do == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if do == "loop":
        started()
        while True: pass
    if do == "stubborn":
        while True:
            try:
                started()
                while True: time.time()
            except BaseException: pass
    if do == "sleep":
        started()
        time.sleep(3600)
    if do == "child":
        import subprocess
        return subprocess.Popen(["sleep", "3600"]).pid
    if do == "pid": return os.getpid()
    return do
def started():
    open("started", "w").close()
class Unprintable(Exception):
    def __str__(self): raise ValueError("no text")
`), "later.py", script(`
import asyncio, sys
@tool
async def later(do: str):
    if do == "value": raise ValueError("no: " + do)
    if do == "exit": sys.exit(7)
    if do == "cancel": raise asyncio.CancelledError()
    if do == "stray":
        async def stray(): sys.exit(3)
        asyncio.create_task(stray())
        await asyncio.sleep(0)
        return do
    if do == "sleep":
        open("started", "w").close()
        await asyncio.sleep(3600)
    return do
`))
	return FlowSpec{ID: "bad", Dir: dir, Nodes: []*value.Dict{node("bad", "bad.py", "do", "${inputs.do}"), node("later", "later.py", "do", "${inputs.do}")}}
}

func TestFault_WhatToolsRaiseIsAFailedCall(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	s := lease(t, open(t, m, badTools(t)))
	cases := []struct{ node, do, class, message string }{
		{"bad", "value", "ToolExecutionError", "Execution failure in 'bad': (ValueError) no: value"},
		{"bad", "chained", "ToolExecutionError", "Execution failure in 'bad': (RuntimeError) outer"},
		{"bad", "exit", "ToolExecutionError", "Execution failure in 'bad': (SystemExit) 7"},
		{"bad", "interrupt", "ToolExecutionError", "Execution failure in 'bad': (KeyboardInterrupt) mine"},
		{"bad", "str", "RuntimeError", "whose text raised ValueError"},
		{"later", "value", "ToolExecutionError", "Execution failure in 'later': (ValueError) no: value"},
		{"later", "exit", "ToolExecutionError", "Execution failure in 'later': (SystemExit) 7"},
		{"later", "cancel", "ToolCanceledError", "Tool execution is canceled because: Received cancel request."},
	}
	for _, c := range cases {
		t.Run(c.node+" "+c.do, func(t *testing.T) {
			r := call(t, s, c.node, "do", c.do)
			must.NotNil(t, r.Error)
			test.Eq(t, c.class, r.Error.Class())
			test.StrContains(t, r.Error.Message, c.message)
			test.Eq(t, `{"do":"`+c.do+`"}`, string(r.Inputs))
			if c.node == "bad" {
				test.StrContains(t, r.Stdout, "before")
			}
		})
	}
	first := call(t, s, "bad", "do", "pid").Value
	call(t, s, "later", "do", "stray")
	test.Eq(t, any("ok"), call(t, s, "later", "do", "ok").Value)
	test.Eq(t, first, call(t, s, "bad", "do", "pid").Value) // still the same worker
}

func TestFault_ErrorsAreTheExecutorsOwn(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	spec := badTools(t)
	yaml := "inputs:\n  do:\n    type: string\noutputs: {}\nnodes:\n- name: bad\n  type: python\n  source: {type: code, path: bad.py}\n  inputs: {do: '${inputs.do}'}\n"
	must.NoError(t, os.WriteFile(filepath.Join(spec.Dir, "flow.dag.yaml"), []byte(yaml), 0o644))
	s := lease(t, open(t, m, spec))
	for _, do := range []string{"value", "chained"} {
		t.Run(do, func(t *testing.T) {
			const oracle = `
import json, sys
from promptflow.executor import FlowExecutor
e = FlowExecutor.create("flow.dag.yaml", {}, working_dir=".", raise_ex=False)
r = e.exec_line({"do": sys.argv[1]})
n = r.node_run_infos["bad"]
print("\n" + json.dumps({"error": n.error, "inputs": n.inputs, "status": n.status.value}))
`
			cmd := exec.CommandContext(within(t, time.Minute), python(t), "-c", oracle, do)
			cmd.Dir = spec.Dir
			out, err := cmd.Output()
			must.NoError(t, err)
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			var theirs struct {
				Error  *api.Error      `json:"error"`
				Inputs json.RawMessage `json:"inputs"`
			}
			must.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &theirs))
			ours := call(t, s, "bad", "do", do)
			must.NotNil(t, ours.Error)
			test.Eq(t, "Tool", ours.Error.Target)
			ours.Error.Target = "" // ours alone
			test.StrContains(t, string(ours.Error.DebugInfo), `"type":"ToolExecutionError"`)
			ours.Error.DebugInfo, theirs.Error.DebugInfo = nil, nil // holds frames of the code around
			test.Eq(t, canonical(t, theirs.Error), canonical(t, ours.Error))
			test.Eq(t, canonical(t, theirs.Inputs), canonical(t, ours.Inputs))
		})
	}
}

// canonical is v as JSON with sorted keys.
func canonical(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	must.NoError(t, err)
	var plain any
	must.NoError(t, json.Unmarshal(data, &plain))
	data, err = json.MarshalIndent(plain, "", " ")
	must.NoError(t, err)
	return string(data)
}

func TestFault_ADyingWorkerFailsItsCallsAndIsReplaced(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	f := open(t, m, badTools(t))
	for do, how := range map[string]string{"_exit": "exited with status 9", "segfault": "signal 11", "kill": "SIGKILL", "orphan": "exited with status 5"} {
		t.Run(do, func(t *testing.T) {
			s := lease(t, f)
			pid := int(call(t, s, "bad", "do", "pid").Value.(int64))
			other := make(chan *Result, 1)
			started := make(chan struct{})
			go func() {
				close(started)
				r, _ := s.Call(within(t, time.Minute), callOf("later", "do", "sleep"))
				other <- r
			}()
			<-started
			r := call(t, s, "bad", "do", do)
			must.NotNil(t, r.Error)
			test.Eq(t, []string{"UserError", "ProcessCrashError"}, r.Error.Chain())
			test.StrContains(t, r.Error.Message, how)
			test.StrContains(t, r.Error.Message, "node 'bad' in line 0")
			gone(t, pid)
			must.NotNil(t, (<-other).Error)
			for _, next := range []*Session{s, lease(t, f)} { // s held nothing that died with its worker
				r := call(t, next, "bad", "do", "pid")
				must.Nil(t, r.Error)
				test.NotEq(t, int64(pid), r.Value.(int64))
			}
		})
	}
}

func TestFault_ADeadZygoteIsReplacedAndItsWorkersLiveOn(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	f := open(t, m, badTools(t))
	s := lease(t, f)
	before := call(t, s, "bad", "do", "pid").Value
	old := zygotePID(m)
	must.NoError(t, syscall.Kill(old, syscall.SIGKILL))
	gone(t, old)
	test.Eq(t, before, call(t, s, "bad", "do", "pid").Value)
	other := open(t, m, badTools(t))
	test.NotEq(t, before, call(t, lease(t, other), "bad", "do", "pid").Value)
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool { return zygotePID(m) != old }), wait.Timeout(30*time.Second), wait.Gap(20*time.Millisecond)))
	third := open(t, m, badTools(t)) // its worker comes from the new zygote, or a spare of it
	must.Nil(t, call(t, lease(t, third), "bad", "do", "pid").Error)
}

func TestFault_Cancel(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1, Grace: 300 * time.Millisecond})
	f := open(t, m, badTools(t))
	cancelled := func(s *Session, node, do string) {
		ctx, cancel := context.WithCancel(within(t, time.Minute))
		defer cancel()
		sign := filepath.Join(f.spec.Dir, "started")
		asked := make(chan time.Time, 1)
		go func() { // ends with ctx
			for ctx.Err() == nil && os.Remove(sign) != nil {
				<-time.After(5 * time.Millisecond)
			}
			asked <- time.Now()
			cancel()
		}()
		r, err := s.Call(ctx, callOf(node, "do", do))
		must.NoError(t, err)
		must.NotNil(t, r.Error)
		test.Eq(t, "ToolCanceledError", r.Error.Class())
		test.Less(t, 5*time.Second, time.Since(<-asked))
	}
	pids := func(s *Session) int { return int(call(t, s, "bad", "do", "pid").Value.(int64)) }

	s := lease(t, f)
	pid := pids(s)
	for range 3 {
		cancelled(s, "bad", "loop")
		cancelled(s, "later", "sleep")
	}
	must.Eq(t, pid, pids(s)) // these end when asked to, so the worker stays
	next := lease(t, f)
	must.Eq(t, pid, pids(next))

	for _, do := range []string{"sleep", "stubborn"} {
		stuck := lease(t, f)
		old := pids(stuck)
		cancelled(stuck, "bad", do)
		must.Wait(t, wait.InitialSuccess(wait.BoolFunc(func() bool {
			other, err := f.Lease(within(t, time.Minute))
			must.NoError(t, err)
			defer other.Release()
			return pids(other) != old // a new session gets another worker
		}), wait.Timeout(30*time.Second), wait.Gap(50*time.Millisecond)))
		must.Eq(t, old, pids(stuck)) // the worker serves its sessions to their end
		stuck.Release()
		if do == "sleep" {
			s.Release()
			next.Release()
		}
		gone(t, old)
	}
}

func TestFault_CancelledBeforeItStarts(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	s := lease(t, open(t, m, badTools(t)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := s.Call(ctx, callOf("bad", "do", "ok"))
	must.NoError(t, err)
	must.Eq(t, "ToolCanceledError", r.Error.Class())
	must.Eq(t, any("ok"), call(t, s, "bad", "do", "ok").Value)
}

func TestFault_LoadingTakesTooLongOrDies(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	spec := func(code string) FlowSpec {
		return FlowSpec{ID: "f", Dir: writeFlow(t, "a.py", code), Nodes: []*value.Dict{node("n", "a.py")}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := m.Open(ctx, spec("import time; time.sleep(3600)"))
	must.ErrorContains(t, err, "did not end in time")
	_, err = m.Open(within(t, time.Minute), spec("import os; os._exit(4)"))
	must.ErrorContains(t, err, "Process crashed while executing the import of the flow's Python code: it exited with status 4")
	var e *api.Error
	must.True(t, errors.As(err, &e))
	_, err = m.Open(within(t, time.Minute), FlowSpec{ID: "f", Dir: filepath.Join(t.TempDir(), "none"), Nodes: nil})
	must.ErrorContains(t, err, "No such file or directory")
}

func TestFault_TooLarge(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1, MaxFrame: 1 << 20})
	dir := writeFlow(t, "a.py", script("@tool\ndef f(n: int, x=None):\n    return 'x' * n\n"))
	s := lease(t, open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "n", "${inputs.n}", "x", "${inputs.x}")}}))
	r := call(t, s, "n", "n", int64(2<<20))
	must.NotNil(t, r.Error)
	test.StrContains(t, r.Error.Message, "The result is too large")
	r = call(t, s, "n", "n", int64(1), "x", strings.Repeat("y", 2<<20))
	must.NotNil(t, r.Error)
	test.StrContains(t, r.Error.Message, "too large for a Python worker")
	must.Nil(t, call(t, s, "n", "n", int64(1)).Error)
}

func TestFault_NothingIsLeftAfterClose(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{})
	f := open(t, m, badTools(t))
	s := lease(t, f)
	pids := []int{zygotePID(m), int(call(t, s, "bad", "do", "pid").Value.(int64)), int(call(t, s, "bad", "do", "child").Value.(int64))}
	dir := m.dir
	must.NoError(t, m.Close())
	for _, pid := range pids {
		gone(t, pid)
	}
	_, err := os.Stat(dir)
	must.ErrorIs(t, err, os.ErrNotExist)
	_, err = m.Open(t.Context(), badTools(t))
	must.ErrorIs(t, err, ErrClosed)
	_, err = f.Lease(t.Context())
	must.ErrorIs(t, err, ErrClosed)
}

// TestMain lets the test binary stand in for a runtime that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WORKER_TEST_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

// victim runs a manager with a worker that holds the interpreter lock in native code, says the pids, and waits to be killed.
func victim(dir string) {
	ctx := context.Background()
	m, err := Start(ctx, Config{Python: os.Getenv("PROMPTFLOW_PYTHON"), Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	f, err := m.Open(ctx, FlowSpec{ID: "v", Dir: dir, Nodes: []*value.Dict{node("n", "a.py"), node("stuck", "stuck.py")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	s, _ := f.Lease(ctx)
	r, _ := s.Call(ctx, Call{Node: "n", RunID: "r"})
	go func() { _, _ = s.Call(ctx, Call{Node: "stuck", RunID: "r"}) }()
	fmt.Printf("%d %d %d %d\n", zygotePID(m), r.Value, m.spare.pid, f.template.process.pid)
	select {}
}

func TestFault_NothingIsLeftWhenTheRuntimeIsKilled(t *testing.T) {
	t.Parallel()
	dir := writeFlow(t, "a.py", script("import os\n@tool\ndef f(): return os.getpid()\n"),
		// PyDLL keeps the interpreter lock: no Python thread of this process will ever run again.
		"stuck.py", script("import ctypes\n@tool\ndef f(): ctypes.PyDLL(None).sleep(3600)\n"))
	cmd := exec.CommandContext(within(t, time.Minute), os.Args[0])
	cmd.Env = append(os.Environ(), "WORKER_TEST_VICTIM="+dir, "PROMPTFLOW_PYTHON="+python(t))
	out, err := cmd.StdoutPipe()
	must.NoError(t, err)
	must.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must.NoError(t, err)
	must.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	for _, field := range strings.Fields(line) {
		pid, err := strconv.Atoi(field)
		must.NoError(t, err, must.Sprint(line))
		gone(t, pid)
	}
}

func TestStart_SaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := Start(within(t, time.Minute), Config{Python: "/nowhere/python3", Dir: t.TempDir()})
	must.ErrorIs(t, err, ErrUnavailable)
	must.ErrorContains(t, err, "install Python 3.9 or later")

	fake := filepath.Join(t.TempDir(), "python")
	must.NoError(t, os.WriteFile(fake, []byte("#!/bin/sh\nexit 3\n"), 0o755))
	_, err = Start(within(t, time.Minute), Config{Python: fake, Dir: t.TempDir()})
	must.ErrorIs(t, err, ErrUnavailable)
	must.ErrorContains(t, err, "ended before it was ready")
}

func TestStart_NoPromptflow(t *testing.T) {
	t.Parallel()
	bare := filepath.Join(t.TempDir(), "python")
	must.NoError(t, os.WriteFile(bare, []byte("#!/bin/sh\nexec "+python(t)+" -S \"$@\"\n"), 0o755)) // without site-packages
	_, err := Start(within(t, time.Minute), Config{Python: bare, Dir: t.TempDir()})
	must.ErrorIs(t, err, ErrUnavailable)
	must.ErrorContains(t, err, "-m pip install promptflow-core promptflow-tools")
}

// Cancelling hits the call it is meant for and no other, whenever it comes.
func TestFault_CancelHitsNobodyElse(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1, Threads: 6, Grace: time.Minute})
	dir := writeFlow(t, "a.py", script("@tool\ndef f(n: int):\n    print(n)\n    return sum(range(n % 5000)) * 0 + n\n"),
		"b.py", script("import asyncio\n@tool\nasync def f(n: int):\n    await asyncio.sleep(0)\n    return n\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("sync", "a.py", "n", "${inputs.n}"), node("async", "b.py", "n", "${inputs.n}")}})
	s := lease(t, f)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 150 {
				n := int64(g*1000 + i)
				name := []string{"sync", "async"}[i%2]
				ctx, cancel := within(t, time.Minute), context.CancelFunc(func() {})
				if i%3 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(i%7)*200*time.Microsecond)
				}
				r, err := s.Call(ctx, callOf(name, "n", n))
				cancel()
				test.NoError(t, err)
				switch {
				case r.Error == nil:
					test.Eq(t, any(n), r.Value)
					if name == "sync" {
						test.StrContains(t, r.Stdout, fmt.Sprintf("] %d\n", n))
					}
				case i%3 == 0:
					test.Eq(t, "ToolCanceledError", r.Error.Class())
				default:
					t.Errorf("call %d was not cancelled but failed: %v", n, r.Error)
				}
			}
		})
	}
	wg.Wait()
}
