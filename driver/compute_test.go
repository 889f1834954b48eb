package driver

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestTopologyCompute_countsAsTheAgentDoes(t *testing.T) {
	t.Parallel()
	cores := []plugin.Core{
		{BaseSpeed: 2000, MaxSpeed: 3000, GuessSpeed: 4000}, // what it can keep up
		{MaxSpeed: 3000, GuessSpeed: 2600},
		{GuessSpeed: 1000},
		{BaseSpeed: 500, Disable: true}, // the agent's total has it, only what tasks may use has not
	}
	test.Eq(t, compute{mhz: 6500, cores: 4}, topologyCompute(&plugin.Topology{Cores: cores}))
	test.Eq(t, compute{mhz: 10000, cores: 4}, topologyCompute(&plugin.Topology{Cores: cores, OverrideTotalCompute: 10000}))
	test.Eq(t, 2500.0, compute{mhz: 10000, cores: 4}.perCore())
	test.Eq(t, 0.0, compute{}.perCore())
}

const twoCores = `processor	: 0
model name	: AMD EPYC
cpu MHz		: 2596.142

processor	: 1
model name	: AMD EPYC
cpu MHz		: 1400.000
`

func TestDetectCompute_forAgentsThatDoNotSay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		files map[string]string
		want  compute
	}{
		{"present speed", map[string]string{"proc/cpuinfo": twoCores}, compute{mhz: 3996, cores: 2}},
		{"top speed where it is told", map[string]string{
			"proc/cpuinfo": twoCores,
			"sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "3500000\n",
		}, compute{mhz: 2596 + 3500, cores: 2}},
		{"a machine that does not tell", map[string]string{"proc/cpuinfo": "processor : 0\nprocessor : 1\n"}, compute{cores: 2}},
	} {
		root := t.TempDir()
		for name, content := range c.files {
			path := filepath.Join(root, name)
			must.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			must.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		}
		test.Eq(t, c.want, detectCompute(root), test.Sprint(c.name))
	}
	test.Positive(t, detectCompute(t.TempDir()).cores)
	test.Positive(t, detectCompute("/").cores)
}
