package worker

import (
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"github.com/shoenig/test/wait"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

func (f *Flow) living() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bury()
	return len(f.workers)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	must.Wait(t, wait.InitialSuccess(wait.BoolFunc(condition), wait.Timeout(30*time.Second), wait.Gap(20*time.Millisecond)), must.Sprint(what))
}

func TestPool_GrowsWithLoadAndShrinksWhenIdle(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 3, Idle: 50 * time.Millisecond})
	dir := writeFlow(t, "a.py", script("import os\n@tool\ndef f(): return os.getpid()\n"))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py")}})
	pinned := lease(t, f)
	first := call(t, pinned, "n").Value
	must.Eq(t, 1, f.living())

	var held []*Session
	eventually(t, "three workers", func() bool {
		s, err := f.Lease(within(t, time.Minute))
		must.NoError(t, err)
		held = append(held, s)
		return f.living() == 3
	})
	pids := map[any]bool{}
	for _, s := range held {
		pids[call(t, s, "n").Value] = true
	}
	test.Eq(t, 3, len(pids)+boolInt(!pids[first]))
	for range 20 {
		s := lease(t, f)
		test.True(t, f.living() <= 3)
		s.Release()
	}
	test.Eq(t, first, call(t, pinned, "n").Value) // a session never moves
	for _, s := range held {
		s.Release()
	}
	eventually(t, "one worker left", func() bool { return f.living() == 1 })
	must.Eq(t, first, call(t, pinned, "n").Value) // the one that was in use
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestPool_ManyFlowsAtOnce(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "a.py", script("@tool\ndef f(x: str): return x\n"))
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			f, err := m.Open(within(t, time.Minute), FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "x", "${inputs.x}")}})
			test.NoError(t, err)
			s, err := f.Lease(within(t, time.Minute))
			test.NoError(t, err)
			r, err := s.Call(within(t, time.Minute), callOf("n", "x", "y"))
			test.NoError(t, err)
			test.Eq(t, any("y"), r.Value)
			s.Release()
			test.NoError(t, f.Close())
		})
	}
	wg.Wait()
}

// Tools may start processes of their own in every way that Python has.
func TestCall_Multiprocessing(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "work.py", "def double(x): return 2 * x\n", "a.py", script(`
import multiprocessing, subprocess, sys
import work
@tool
def f(how: str):
    if how == "subprocess":
        return subprocess.run([sys.executable, "-c", "print(42)"], capture_output=True, text=True).stdout
    with multiprocessing.get_context(how).Pool(1) as pool:
        return pool.map(work.double, [1, 2])
`))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "how", "${inputs.how}")}})
	s := lease(t, f)
	for how, want := range map[string]any{"spawn": []any{int64(2), int64(4)}, "fork": []any{int64(2), int64(4)}, "subprocess": "42\n"} {
		r := call(t, s, "n", "how", how)
		must.Nil(t, r.Error, must.Sprintf("%s: %v", how, r.Error))
		test.Eq(t, want, r.Value)
	}
}
