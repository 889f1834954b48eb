package engine

import (
	"context"
	"fmt"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/services/tasks/v1"
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
	counters, err := typeurl.UnmarshalAny(response.Metrics[0].Data)
	if err != nil {
		return nil, fmt.Errorf("decode counters of container %s: %w", id, err)
	}
	switch c := counters.(type) {
	case *cgroup1.Metrics:
		return usageV1(c), nil
	case *cgroup2.Metrics:
		return usageV2(c), nil
	}
	return nil, fmt.Errorf("decode counters of container %s: unknown type %T", id, counters)
}

func usageV1(m *cgroup1.Metrics) *driver.Usage {
	cpu, memory := m.GetCPU(), m.GetMemory()
	return &driver.Usage{
		CPUTotal:         cpu.GetUsage().GetTotal(),
		CPUUser:          cpu.GetUsage().GetUser(),
		CPUSystem:        cpu.GetUsage().GetKernel(),
		ThrottledPeriods: cpu.GetThrottling().GetThrottledPeriods(),
		ThrottledTime:    cpu.GetThrottling().GetThrottledTime(),
		MemoryUsage:      memory.GetUsage().GetUsage(),
		MemoryMax:        memory.GetUsage().GetMax(),
		RSS:              memory.GetTotalRSS(),
		Cache:            memory.GetTotalCache(),
		KernelUsage:      memory.GetKernel().GetUsage(),
		KernelMaxUsage:   memory.GetKernel().GetMax(),
		MemorySwap:       difference(memory.GetSwap().GetUsage(), memory.GetUsage().GetUsage()),
	}
}

// usageV2 has times in microseconds to begin with.
func usageV2(m *cgroup2.Metrics) *driver.Usage {
	const microsecond = 1000
	cpu, memory := m.GetCPU(), m.GetMemory()
	return &driver.Usage{
		CPUTotal:         cpu.GetUsageUsec() * microsecond,
		CPUUser:          cpu.GetUserUsec() * microsecond,
		CPUSystem:        cpu.GetSystemUsec() * microsecond,
		ThrottledPeriods: cpu.GetNrThrottled(),
		ThrottledTime:    cpu.GetThrottledUsec() * microsecond,
		MemoryUsage:      memory.GetUsage(),
		MemoryMax:        memory.GetMaxUsage(),
		RSS:              memory.GetAnon(),
		Cache:            memory.GetFile(),
		KernelUsage:      memory.GetKernelStack() + memory.GetSlab(),
		MemorySwap:       memory.GetSwapUsage(),
	}
}

// difference is a - b where that is not below zero: the swap counter of version 1 includes the memory.
func difference(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
