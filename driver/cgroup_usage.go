package driver

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// usage reads the counters of a cgroup from the kernel's files. A counter without a file is not counted by this kernel. It
// fails with ErrNoContainer when there is no such cgroup.
func (c cgroups) usage(cgroupsPath string) (*Usage, error) {
	if c.version == 2 {
		return usageOfGroup(filepath.Join(c.root, cgroupsPath))
	}
	return usageOfControllers(
		filepath.Join(c.root, "cpu", cgroupsPath),
		filepath.Join(c.root, "cpuacct", cgroupsPath),
		filepath.Join(c.root, "memory", cgroupsPath),
	)
}

// usageOfControllers is version 1, in which each controller has a folder of its own and tells times in nanoseconds.
func usageOfControllers(cpu, account, memory string) (*Usage, error) {
	if err := cgroupExists(memory); err != nil {
		return nil, err
	}
	throttled := keyed(filepath.Join(cpu, "cpu.stat"))
	stat := keyed(filepath.Join(memory, "memory.stat"))
	return &Usage{
		CPUTotal:         number(account, "cpuacct.usage"),
		CPUUser:          number(account, "cpuacct.usage_user"),
		CPUSystem:        number(account, "cpuacct.usage_sys"),
		ThrottledPeriods: throttled.get("nr_throttled"),
		ThrottledTime:    throttled.get("throttled_time"),
		MemoryUsage:      number(memory, "memory.usage_in_bytes"),
		MemoryMax:        number(memory, "memory.max_usage_in_bytes"),
		RSS:              stat.get("total_rss"),
		Cache:            stat.get("total_cache"),
		MemorySwap:       stat.get("total_swap"),
		KernelUsage:      number(memory, "memory.kmem.usage_in_bytes"),
		KernelMaxUsage:   number(memory, "memory.kmem.max_usage_in_bytes"),
	}, nil
}

// usageOfGroup is version 2: one folder, and times in microseconds. Its peak came with Linux 5.19, its sum of the kernel's
// memory with 5.18.
func usageOfGroup(group string) (*Usage, error) {
	if err := cgroupExists(group); err != nil {
		return nil, err
	}
	cpu := keyed(filepath.Join(group, "cpu.stat"))
	stat := keyed(filepath.Join(group, "memory.stat"))
	kernel := stat.get("kernel")
	if kernel == nil {
		kernel = sum(stat.get("kernel_stack"), stat.get("slab"))
	}
	return &Usage{
		CPUTotal:         nanoseconds(cpu.get("usage_usec")),
		CPUUser:          nanoseconds(cpu.get("user_usec")),
		CPUSystem:        nanoseconds(cpu.get("system_usec")),
		ThrottledPeriods: cpu.get("nr_throttled"),
		ThrottledTime:    nanoseconds(cpu.get("throttled_usec")),
		MemoryUsage:      number(group, "memory.current"),
		MemoryMax:        number(group, "memory.peak"),
		RSS:              stat.get("anon"),
		Cache:            stat.get("file"),
		MemorySwap:       number(group, "memory.swap.current"),
		KernelUsage:      kernel,
	}, nil
}

func cgroupExists(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("read cgroup %s: %w: %w", dir, ErrNoContainer, err)
	}
	return nil
}

// number is the content of a file that holds one number, nil when there is no such file.
func number(dir, file string) *uint64 {
	value, ok := readNumber(filepath.Join(dir, file))
	if !ok {
		return nil
	}
	return &value
}

// counters are the lines of a file of names and numbers.
type counters map[string]uint64

func keyed(path string) counters {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	found := counters{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		name, text, _ := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseUint(text, 10, 64); err == nil {
			found[name] = value
		}
	}
	return found
}

func (c counters) get(name string) *uint64 {
	value, ok := c[name]
	if !ok {
		return nil
	}
	return &value
}

// nanoseconds of a counter of microseconds.
func nanoseconds(microseconds *uint64) *uint64 {
	if microseconds == nil {
		return nil
	}
	return new(*microseconds * 1000)
}

func sum(a, b *uint64) *uint64 {
	if a == nil || b == nil {
		return nil
	}
	return new(*a + *b)
}
