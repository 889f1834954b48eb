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
		case errors.Is(err, ErrNoContainer), task.hasEnded():
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

func (d *Driver) usage(ctx context.Context, task *task) (*Usage, error) {
	engine, _, err := d.current()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return engine.Usage(ctx, task.state.ContainerID)
}

// mhzPerCore is what 100 percent of a core is worth in the agent's count of compute, 0 when the agent did not say.
func (d *Driver) mhzPerCore() float64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return float64(d.nodeMHz) / float64(cores())
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
	percent := func(after, before uint64) float64 {
		if after < before {
			return 0
		}
		return float64(after-before) / float64(now.Sub(beforeAt)) * 100
	}
	total := percent(usage.CPUTotal, before.CPUTotal)
	return plugin.TaskUsage{Time: now, Usage: plugin.Usage{
		CPU: &plugin.CPUUsage{
			Percent:    total,
			UserMode:   percent(usage.CPUUser, before.CPUUser),
			SystemMode: percent(usage.CPUSystem, before.CPUSystem),
			TotalTicks: total / 100 * mhzPerCore, ThrottledPeriods: usage.ThrottledPeriods,
			ThrottledTime: usage.ThrottledTime,
			Measured: []string{
				"System Mode", "User Mode", "Total Ticks", "Throttled Periods", "Throttled Time", "Percent",
			},
		},
		Memory: &plugin.MemoryUsage{
			RSS: usage.RSS, Cache: usage.Cache, Usage: usage.MemoryUsage, MaxUsage: usage.MemoryMax,
			Swap: usage.MemorySwap, KernelUsage: usage.KernelUsage, KernelMaxUsage: usage.KernelMaxUsage,
			Measured: []string{"RSS", "Cache", "Usage", "Max Usage", "Swap", "Kernel Usage", "Kernel Max Usage"},
		},
	}}, true
}
