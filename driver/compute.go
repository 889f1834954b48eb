package driver

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// compute is what the node's processors can do, counted as the agent counts it.
type compute struct {
	mhz   int64 // of all cores together, 0 when unknown
	cores int64
}

// perCore is what 100 percent of a core is worth in MHz, 0 when unknown.
func (c compute) perCore() float64 {
	if c.cores == 0 {
		return 0
	}
	return float64(c.mhz) / float64(c.cores)
}

// nodeCompute is what the agent says, and what the node itself says for agents before 1.7, which say nothing.
func nodeCompute(client *plugin.ClientConfig) compute {
	if client.Topology == nil {
		return detectCompute("/")
	}
	return topologyCompute(client.Topology)
}

// topologyCompute adds up all cores, those too that are kept from tasks: a share of the node is a share of all of it. An
// operator's own figure goes before.
func topologyCompute(topology *plugin.Topology) compute {
	sum := compute{cores: int64(len(topology.Cores))}
	for _, core := range topology.Cores {
		sum.mhz += coreSpeed(core)
	}
	if topology.OverrideTotalCompute > 0 {
		sum.mhz = int64(topology.OverrideTotalCompute)
	}
	if sum.cores == 0 {
		sum.cores = cores()
	}
	return sum
}

// coreSpeed is the base speed: what a core can keep up. Not every kernel tells it.
func coreSpeed(core plugin.Core) int64 {
	if core.BaseSpeed > 0 {
		return int64(core.BaseSpeed)
	}
	return int64(max(core.MaxSpeed, core.GuessSpeed))
}

// detectCompute reads what an agent before 1.7 reads: each core's top speed, or its present one where the kernel does not
// tell that. Root is that of the file system.
func detectCompute(root string) compute {
	speeds := presentSpeeds(filepath.Join(root, "proc/cpuinfo"))
	sum := compute{cores: int64(len(speeds))}
	for number, speed := range speeds {
		file := filepath.Join(root, "sys/devices/system/cpu", "cpu"+strconv.Itoa(number), "cpufreq/cpuinfo_max_freq")
		if top, ok := readNumber(file); ok {
			speed = int64(top / 1000)
		}
		sum.mhz += speed
	}
	if sum.cores == 0 {
		sum.cores = cores()
	}
	return sum
}

// presentSpeeds are the speeds of all cores in MHz, by their number. They are 0 on machines that do not tell.
func presentSpeeds(cpuinfo string) map[int]int64 {
	file, err := os.Open(cpuinfo)
	if err != nil {
		return nil
	}
	defer file.Close()
	speeds, core := map[int]int64{}, 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "processor":
			if number, err := strconv.Atoi(value); err == nil {
				core = number
				speeds[core] = 0
			}
		case "cpu MHz":
			if speed, err := strconv.ParseFloat(value, 64); err == nil {
				speeds[core] = int64(speed)
			}
		}
	}
	return speeds
}

// readNumber reads a file that holds nothing but a number.
func readNumber(path string) (uint64, bool) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	number, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
	return number, err == nil
}

// cores is how many processors this process may use, which on a node is all of them.
func cores() int64 { return int64(runtime.NumCPU()) }
