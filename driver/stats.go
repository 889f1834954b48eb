package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// minStatsInterval keeps a mistaken interval from becoming a busy loop.
const minStatsInterval = 100 * time.Millisecond

// TaskStats sends the task's use of cpu and memory every interval until the task has ended or ctx ends.
func (d *Driver) TaskStats(
	ctx context.Context, id string, interval time.Duration, send func(plugin.TaskUsage) error,
) error {
	task, ok := d.tasks.get(id)
	if !ok {
		return plugin.ErrTaskNotFound
	}
	ticker := time.NewTicker(max(interval, minStatsInterval))
	defer ticker.Stop()
	var meter cpuMeter
	for {
		usage, err := d.usage(ctx, task)
		switch {
		case errors.Is(err, ErrNoContainer) || task.hasEnded():
			return nil
		case err == nil:
			if sample, ok := meter.sample(usage, time.Now(), d.mhzPerCore()); ok {
				if err := send(sample); err != nil {
					return fmt.Errorf("send task usage: %w", err)
				}
			}
		default:
			d.logger.Debug("cannot read usage of task", "task_id", id, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-task.ended:
			return nil
		case <-task.gone.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// usage reads the cgroup's files where the container runs on the node's own kernel. A shim would read the same files, at five
// times the cost. What other runtimes count only their shims know.
func (d *Driver) usage(ctx context.Context, task *task) (*Usage, error) {
	if sharesKernel(task.state.Runtime) {
		if usage, err := hostCgroups().usage(task.state.CgroupsPath); err == nil && usage.CPUTotal != nil && usage.MemoryUsage != nil {
			return usage, nil
		}
	}
	engine, _, err := d.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return engine.Usage(ctx, task.state.ContainerID)
}

// mhzPerCore is what 100 percent of a core is worth in the agent's count of compute, 0 when nobody knows.
func (d *Driver) mhzPerCore() float64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.compute.perCore()
}

// cpuMeter turns counters into percentages of the time between two readings.
type cpuMeter struct {
	last   Usage
	lastAt time.Time
}

// sample compares a reading with the one before; the first has none and gives no sample.
func (m *cpuMeter) sample(usage *Usage, now time.Time, mhzPerCore float64) (plugin.TaskUsage, bool) {
	before, beforeAt := m.last, m.lastAt
	m.last, m.lastAt = *usage, now
	if beforeAt.IsZero() || !now.After(beforeAt) {
		return plugin.TaskUsage{}, false
	}
	since := now.Sub(beforeAt)
	return plugin.TaskUsage{Time: now, Usage: plugin.Usage{
		CPU: cpuUsage(usage, &before, since, mhzPerCore), Memory: memoryUsage(usage),
	}}, true
}

// cpuUsage is the use of cpu in the time since before.
func cpuUsage(usage, before *Usage, since time.Duration, mhzPerCore float64) *plugin.CPUUsage {
	used := &plugin.CPUUsage{}
	percent := func(name string, after, before *uint64, into *float64) {
		if after == nil || before == nil {
			return
		}
		used.Measured = append(used.Measured, name)
		if *after > *before {
			*into = float64(*after-*before) / float64(since) * 100
		}
	}
	percent("Percent", usage.CPUTotal, before.CPUTotal, &used.Percent)
	percent("User Mode", usage.CPUUser, before.CPUUser, &used.UserMode)
	percent("System Mode", usage.CPUSystem, before.CPUSystem, &used.SystemMode)
	if len(used.Measured) > 0 && mhzPerCore > 0 {
		used.Measured = append(used.Measured, "Total Ticks")
		used.TotalTicks = used.Percent / 100 * mhzPerCore
	}
	measure(&used.Measured, "Throttled Periods", usage.ThrottledPeriods, &used.ThrottledPeriods)
	measure(&used.Measured, "Throttled Time", usage.ThrottledTime, &used.ThrottledTime)
	return used
}

func memoryUsage(usage *Usage) *plugin.MemoryUsage {
	used := &plugin.MemoryUsage{}
	measure(&used.Measured, "RSS", usage.RSS, &used.RSS)
	measure(&used.Measured, "Cache", usage.Cache, &used.Cache)
	measure(&used.Measured, "Usage", usage.MemoryUsage, &used.Usage)
	measure(&used.Measured, "Max Usage", usage.MemoryMax, &used.MaxUsage)
	measure(&used.Measured, "Swap", usage.MemorySwap, &used.Swap)
	measure(&used.Measured, "Kernel Usage", usage.KernelUsage, &used.KernelUsage)
	measure(&used.Measured, "Kernel Max Usage", usage.KernelMaxUsage, &used.KernelMaxUsage)
	return used
}

// measure takes a counter over, by the protocol's name for it, if there is one.
func measure(measured *[]string, name string, counter, into *uint64) {
	if counter != nil {
		*measured = append(*measured, name)
		*into = *counter
	}
}
