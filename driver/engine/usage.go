package engine

import (
	"context"
	"fmt"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// Usage reads the cgroup's counters through the shim, so that it works for every runtime.
func (e *Engine) Usage(ctx context.Context, id string) (*driver.Usage, error) {
	response, err := e.client.TaskService().Metrics(ctx, &tasks.MetricsRequest{Filters: []string{"id==" + id}})
	if err != nil {
		return nil, fmt.Errorf("read counters of container %s: %w", id, explain(err))
	}
	if len(response.Metrics) == 0 {
		return nil, fmt.Errorf("read counters of container %s: %w", id, driver.ErrNoContainer)
	}
	usage, err := decodeUsage(response.Metrics[0])
	if err != nil {
		return nil, fmt.Errorf("decode counters of container %s: %w", id, err)
	}
	return usage, nil
}

func decodeUsage(metric *types.Metric) (*driver.Usage, error) {
	counters, err := typeurl.UnmarshalAny(metric.Data)
	if err != nil {
		return nil, err
	}
	switch c := counters.(type) {
	case *cgroup1.Metrics:
		return usageV1(c), nil
	case *cgroup2.Metrics:
		return usageV2(c), nil
	}
	return nil, fmt.Errorf("unknown type %T", counters)
}

// usageV1 converts the counters of cgroup version 1. A part that is missing was not read by the shim.
func usageV1(m *cgroup1.Metrics) *driver.Usage {
	usage := &driver.Usage{}
	if cpu := m.GetCPU(); cpu != nil {
		usage.CPUTotal = new(cpu.GetUsage().GetTotal())
		usage.CPUUser = new(cpu.GetUsage().GetUser())
		usage.CPUSystem = new(cpu.GetUsage().GetKernel())
		usage.ThrottledPeriods = new(cpu.GetThrottling().GetThrottledPeriods())
		usage.ThrottledTime = new(cpu.GetThrottling().GetThrottledTime())
	}
	memory := m.GetMemory()
	if memory == nil {
		return usage
	}
	usage.MemoryUsage = new(memory.GetUsage().GetUsage())
	usage.MemoryMax = counted(memory.GetUsage().GetMax())
	usage.RSS = new(memory.GetTotalRSS())
	usage.Cache = new(memory.GetTotalCache())
	if kernel := memory.GetKernel(); kernel != nil {
		usage.KernelUsage, usage.KernelMaxUsage = new(kernel.GetUsage()), counted(kernel.GetMax())
	}
	if swap := memory.GetSwap(); swap != nil {
		// This counter includes the memory.
		usage.MemorySwap = new(difference(swap.GetUsage(), memory.GetUsage().GetUsage()))
	}
	return usage
}

// usageV2 converts the counters of cgroup version 2, whose times are in microseconds. Its peak came with Linux 5.19, and with shims
// of that age.
func usageV2(m *cgroup2.Metrics) *driver.Usage {
	const microsecond = 1000
	usage := &driver.Usage{}
	if cpu := m.GetCPU(); cpu != nil {
		usage.CPUTotal = new(cpu.GetUsageUsec() * microsecond)
		usage.CPUUser = new(cpu.GetUserUsec() * microsecond)
		usage.CPUSystem = new(cpu.GetSystemUsec() * microsecond)
		usage.ThrottledPeriods = new(cpu.GetNrThrottled())
		usage.ThrottledTime = new(cpu.GetThrottledUsec() * microsecond)
	}
	if memory := m.GetMemory(); memory != nil {
		usage.MemoryUsage = new(memory.GetUsage())
		usage.MemoryMax = counted(memory.GetMaxUsage())
		usage.RSS = new(memory.GetAnon())
		usage.Cache = new(memory.GetFile())
		usage.KernelUsage = new(memory.GetKernelStack() + memory.GetSlab())
		usage.MemorySwap = new(memory.GetSwapUsage())
	}
	return usage
}

// counted is nil for a maximum of zero: no process ever ran without memory, so nobody counted it.
func counted(maximum uint64) *uint64 {
	if maximum == 0 {
		return nil
	}
	return &maximum
}

// difference is a - b where that is not below zero.
func difference(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
