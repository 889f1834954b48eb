package worker

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Run: PROMPTFLOW_INTEGRATION=1 go test -run '^$' -bench . ./runtime/worker

func BenchmarkCall(b *testing.B) {
	m := startManager(b, Config{Workers: 1})
	dir := writeFlow(b, "sync.py", script("@tool\ndef f(x: str): return x\n"), "async.py", script("@tool\nasync def f(x: str): return x\n"))
	f := open(b, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("sync", "sync.py", "x", "${inputs.x}"), node("async", "async.py", "x", "${inputs.x}")}})
	for _, name := range []string{"sync", "async"} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				s := lease(b, f)
				before := cpuTime(b, s.process.pid)
				b.SetParallelism(callers)
				b.ResetTimer()
				if callers == 1 {
					for range b.N {
						benchCall(b, s, name)
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							benchCall(b, s, name)
						}
					})
				}
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
				b.ReportMetric(float64((cpuTime(b, s.process.pid)-before).Microseconds())/float64(b.N), "µs-python/op")
			})
		}
	}
}

func benchCall(b *testing.B, s *Session, name string) {
	r, err := s.Call(b.Context(), Call{Node: name, RunID: "r", Inputs: []Input{{Name: "x", Value: "hello"}}})
	if err != nil || r.Error != nil {
		b.Errorf("call: %v %v", err, r.Error)
	}
}

// BenchmarkFirstAnswer is a flow never seen before: open, lease, call.
func BenchmarkFirstAnswer(b *testing.B) {
	m := startManager(b, Config{Workers: 1})
	dir := writeFlow(b, "a.py", script("@tool\ndef f(x: str): return x\n"))
	for b.Loop() {
		f, err := m.Open(b.Context(), FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "x", "${inputs.x}")}})
		must.NoError(b, err)
		s, err := f.Lease(b.Context())
		must.NoError(b, err)
		benchCall(b, s, "n")
		b.StopTimer()
		s.Release()
		must.NoError(b, f.Close())
		b.StartTimer()
	}
}

// BenchmarkMemory reports what an idle zygote and an idle worker cost.
func BenchmarkMemory(b *testing.B) {
	m := startManager(b, Config{Workers: 1})
	dir := writeFlow(b, "a.py", script("@tool\ndef f(x: str): return x\n"))
	f := open(b, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("n", "a.py", "x", "${inputs.x}")}})
	s := lease(b, f)
	var calls atomic.Int64
	for b.Loop() {
		benchCall(b, s, "n")
		calls.Add(1)
	}
	for who, pid := range map[string]int{"zygote": zygotePID(m), "worker": s.process.pid} {
		rollup := memory(b, pid)
		b.ReportMetric(rollup["Rss"], who+"-rss-MiB")
		b.ReportMetric(rollup["Pss"], who+"-pss-MiB")
		b.ReportMetric(rollup["Private_Dirty"], who+"-private-MiB")
	}
}

func memory(b *testing.B, pid int) map[string]float64 {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	must.NoError(b, err)
	defer file.Close()
	found := map[string]float64{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) == 3 {
			kb, _ := strconv.ParseFloat(fields[1], 64)
			found[strings.TrimSuffix(fields[0], ":")] = kb / 1024
		}
	}
	return found
}

// cpuTime is the processor time a process has used.
func cpuTime(b *testing.B, pid int) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must.NoError(b, err)
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
}
