package driver

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestCPUMeter(t *testing.T) {
	t.Parallel()
	var meter cpuMeter
	now := time.Now()
	_, ok := meter.sample(&Usage{CPUTotal: new(uint64(5e9)), CPUUser: new(uint64(1e9))}, now, 2000)
	must.False(t, ok, must.Sprint("one reading is no measurement"))
	sample, ok := meter.sample(&Usage{
		CPUTotal: new(uint64(5e9 + 5e8)), CPUUser: new(uint64(1e9 + 4e8)), ThrottledPeriods: new(uint64(3)), RSS: new(uint64(7)),
	}, now.Add(time.Second), 2000)
	must.True(t, ok)
	test.Eq(t, 50.0, sample.CPU.Percent)
	test.Eq(t, 40.0, sample.CPU.UserMode)
	test.Eq(t, 1000.0, sample.CPU.TotalTicks)
	test.Eq(t, uint64(3), sample.CPU.ThrottledPeriods)
	test.Eq(t, uint64(7), sample.Memory.RSS)
	test.Eq(t, []string{"Percent", "User Mode", "Total Ticks", "Throttled Periods"}, sample.CPU.Measured)
	test.Eq(t, []string{"RSS"}, sample.Memory.Measured)
}

func TestCPUMeter_measuresNothingItDoesNotKnow(t *testing.T) {
	t.Parallel()
	var meter cpuMeter
	now := time.Now()
	meter.sample(&Usage{CPUTotal: new(uint64(10))}, now, 0)
	sample, ok := meter.sample(&Usage{CPUTotal: new(uint64(5))}, now.Add(time.Second), 0)
	must.True(t, ok)
	test.Eq(t, 0.0, sample.CPU.Percent, test.Sprint("a counter that went back, as after a restart of the container"))
	test.Eq(t, []string{"Percent"}, sample.CPU.Measured, test.Sprint("no ticks without the node's speed"))
	test.SliceEmpty(t, sample.Memory.Measured)
}

// The files as the kernel writes them, with what is left out shortened.
var (
	versionOneFiles = map[string]string{
		"cpu/pf/x/cpu.stat":                             "nr_periods 20\nnr_throttled 4\nthrottled_time 1500\nnr_bursts 0\n",
		"cpuacct/pf/x/cpuacct.usage":                    "9000\n",
		"cpuacct/pf/x/cpuacct.usage_user":               "6000\n",
		"cpuacct/pf/x/cpuacct.usage_sys":                "3000\n",
		"memory/pf/x/memory.usage_in_bytes":             "4096\n",
		"memory/pf/x/memory.max_usage_in_bytes":         "8192\n",
		"memory/pf/x/memory.stat":                       "cache 1\nrss 2\ntotal_cache 100\ntotal_rss 200\ntotal_swap 50\n",
		"memory/pf/x/memory.kmem.usage_in_bytes":        "10\n",
		"memory/pf/x/memory.kmem.max_usage_in_bytes":    "20\n",
		"memory/pf/other/memory.kmem.max_usage_in_byte": "99\n",
	}
	versionTwoFiles = map[string]string{
		"pf/x/cpu.stat":            "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 20\nnr_throttled 4\nthrottled_usec 2\n",
		"pf/x/memory.stat":         "anon 200\nfile 100\nkernel 15\nkernel_stack 4\nslab 6\nslab_reclaimable 1\n",
		"pf/x/memory.current":      "4096\n",
		"pf/x/memory.peak":         "8192\n",
		"pf/x/memory.swap.current": "50\n",
	}
)

func TestCgroups_usage(t *testing.T) {
	t.Parallel()
	one := Usage{
		CPUTotal: new(uint64(9000)), CPUUser: new(uint64(6000)), CPUSystem: new(uint64(3000)),
		ThrottledPeriods: new(uint64(4)), ThrottledTime: new(uint64(1500)),
		MemoryUsage: new(uint64(4096)), MemoryMax: new(uint64(8192)), RSS: new(uint64(200)), Cache: new(uint64(100)),
		KernelUsage: new(uint64(10)), KernelMaxUsage: new(uint64(20)), MemorySwap: new(uint64(50)),
	}
	two := one
	two.ThrottledTime, two.KernelUsage, two.KernelMaxUsage = new(uint64(2000)), new(uint64(15)), nil
	before519 := two
	before519.MemoryMax, before519.MemorySwap, before519.KernelUsage = nil, nil, new(uint64(10))
	for _, c := range []struct {
		name    string
		version int
		files   map[string]string
		without []string
		change  map[string]string
		want    Usage
	}{
		{"version 1", 1, versionOneFiles, nil, nil, one},
		{"version 2", 2, versionTwoFiles, nil, nil, two},
		{"version 2 before Linux 5.18, without swap", 2, versionTwoFiles, []string{"pf/x/memory.peak", "pf/x/memory.swap.current"},
			map[string]string{"pf/x/memory.stat": "anon 200\nfile 100\nkernel_stack 4\nslab 6\n"}, before519},
	} {
		groups := cgroups{root: t.TempDir(), version: c.version}
		for name, content := range c.files {
			if changed, ok := c.change[name]; ok {
				content = changed
			}
			path := filepath.Join(groups.root, name)
			must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		}
		for _, name := range c.without {
			must.NoError(t, os.Remove(filepath.Join(groups.root, name)))
		}
		usage, err := groups.usage("/pf/x")
		must.NoError(t, err)
		test.Eq(t, c.want, *usage, test.Sprint(c.name))
		_, err = groups.usage("/pf/gone")
		test.ErrorIs(t, err, ErrNoContainer)
	}
}
