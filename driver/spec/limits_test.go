package spec

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestRlimits(t *testing.T) {
	t.Parallel()
	limits, err := Rlimits(map[string]string{"nproc": "10", "nofile": "1024:2048", "core": "-1", "memlock": "0:-1"})
	must.NoError(t, err)
	test.Eq(t, []specs.POSIXRlimit{
		{Type: "RLIMIT_CORE", Soft: unlimited, Hard: unlimited},
		{Type: "RLIMIT_MEMLOCK", Soft: 0, Hard: unlimited},
		{Type: "RLIMIT_NOFILE", Soft: 1024, Hard: 2048},
		{Type: "RLIMIT_NPROC", Soft: 10, Hard: 10},
	}, limits)
}

func TestParseSwap(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "-1": -1, "100": 100, "100b": 100, "2k": 2048, "512m": 512 << 20, "1G": 1 << 30,
	} {
		got, err := ParseSwap(text)
		must.NoError(t, err, must.Sprint(text))
		test.Eq(t, want, got, test.Sprint(text))
	}
}

func TestBuild_limits(t *testing.T) {
	t.Parallel()
	swappiness := int64(10)
	task := plain()
	task.Resources.CPUQuota, task.Resources.CPUPeriod = 50, 20000
	task.Resources.Pids, task.Resources.OOMScoreAdj = 7, 300
	task.Resources.Swap, task.Resources.Swappiness = 128<<20, &swappiness
	built := build(t, task, Host{CgroupVersion: 1, SwapAccounting: true})
	test.Eq(t, int64(1000), *built.Linux.Resources.CPU.Quota, test.Sprint("the kernel's least"))
	test.Eq(t, uint64(20000), *built.Linux.Resources.CPU.Period)
	test.Eq(t, int64(7), *built.Linux.Resources.Pids.Limit)
	test.Eq(t, 300, *built.Process.OOMScoreAdj)
	test.Eq(t, int64(128<<20), *built.Linux.Resources.Memory.Swap)
	test.Eq(t, uint64(10), *built.Linux.Resources.Memory.Swappiness)

	none := build(t, plain(), Host{CgroupVersion: 2})
	test.Nil(t, none.Linux.Resources.Pids)
	test.Nil(t, none.Process.OOMScoreAdj)
	test.Nil(t, none.Linux.Resources.CPU.Quota)
}

func TestBuild_refusesSwapThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		set  func(*Resources)
		host Host
		want string
	}{
		{"kernel without swap accounting", func(r *Resources) { r.Swap = -1 }, Host{CgroupVersion: 1}, "cannot limit swap"},
		{"less than memory", func(r *Resources) { r.Swap = 1 << 20 }, Host{CgroupVersion: 2}, "at least the memory limit"},
		{"memory without limit", func(r *Resources) { r.Swap, r.MemoryMaxMB = 1<<20, -1 }, Host{CgroupVersion: 2}, "no limit"},
		{"swappiness", func(r *Resources) { r.Swappiness = new(int64) }, Host{CgroupVersion: 2}, "memory_swappiness"},
	} {
		task := plain()
		c.set(&task.Resources)
		_, err := Build(task, c.host)
		test.ErrorContains(t, err, c.want, test.Sprint(c.name))
	}
	task := plain()
	task.Resources.Swap = -1
	test.Eq(t, int64(-1), *build(t, task, Host{CgroupVersion: 2}).Linux.Resources.Memory.Swap)
}
