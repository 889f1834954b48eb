package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// How often the node is looked at, how long a look may take, and how often it is reported without a change. The first two
// together are how late a lost daemon is noticed.
const (
	probeInterval  = 3 * time.Second
	probeTimeout   = 4 * time.Second
	reportInterval = 30 * time.Second
)

// Fingerprint reports the node at once, at every change, and every 30 seconds, until ctx ends.
func (d *Driver) Fingerprint(ctx context.Context, send func(plugin.Fingerprint) error) error {
	var report reporter
	remains := newCollector(d)
	for ctx.Err() == nil && d.life.Err() == nil {
		d.mu.RLock()
		configured := d.configured
		d.mu.RUnlock()
		seen := d.look(ctx)
		if seen.Health == plugin.Healthy && ctx.Err() == nil {
			d.sweep()
			remains.next(ctx, time.Now())
		}
		if next, due := report.next(seen, time.Now()); due && ctx.Err() == nil {
			if err := send(next); err != nil {
				return fmt.Errorf("send fingerprint: %w", err)
			}
		}
		waitForNextLook(ctx, configured)
	}
	<-ctx.Done()
	return nil
}

func waitForNextLook(ctx context.Context, configured <-chan struct{}) {
	timer := time.NewTimer(probeInterval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-configured:
	case <-timer.C:
	}
}

// look describes the node as it is now.
func (d *Driver) look(ctx context.Context) plugin.Fingerprint {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	seen := plugin.Fingerprint{
		Health:     plugin.Unhealthy,
		Attributes: map[string]any{"driver.promptflow.version": d.parts.Version},
	}
	engine, config, err := d.current()
	if err != nil {
		seen.Description = err.Error()
		return seen
	}
	info, err := engine.Probe(ctx, config.runtimes())
	switch {
	case errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded):
		// The cause is not in the description: its wording changes, and each change is an event of the node.
		seen.Description = "containerd at " + config.Containerd.Address + " does not answer"
		seen.Err = err
		return seen
	case err != nil:
		seen.Description, seen.Err = err.Error(), err
		return seen
	}
	d.findUnusedImages(ctx, engine)
	seen.Health, seen.Description = plugin.Healthy, "Healthy"
	maps.Copy(seen.Attributes, map[string]any{
		"driver.promptflow.containerd.version": info.Version,
		"driver.promptflow.snapshotter":        config.Containerd.Snapshotter,
		"driver.promptflow.runtime":            config.Containerd.Runtime,
		"driver.promptflow.runtimes":           strings.Join(info.Runtimes, ","),
		"driver.promptflow.cgroup":             int64(hostCgroups().version),
		"driver.promptflow.privileged.enabled": config.AllowPrivileged,
		"driver.promptflow.volumes.enabled":    config.Volumes.Enabled,
		"driver.promptflow.environment":        config.DefaultEnvironment,
	})
	if digest := defaultEnvironmentDigest(ctx, engine, config); digest != "" {
		seen.Attributes["driver.promptflow.environment.digest"] = digest
	}
	return seen
}

// runtimes are the full names of those that tasks may have, the default one among them, in a lasting order.
func (c *PluginConfig) runtimes() []string {
	names := []string{c.Containerd.Runtime}
	for _, name := range c.AllowRuntimes {
		names = append(names, runtimeName(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// defaultEnvironmentDigest is what a task without environment or image would run, empty when that is nowhere.
func defaultEnvironmentDigest(ctx context.Context, engine Engine, config PluginConfig) string {
	request, err := environmentRequest(config, TaskConfig{Environment: config.DefaultEnvironment})
	if err != nil {
		return ""
	}
	if desc, err := request.Source.Resolve(ctx, request.Ref); err == nil {
		return desc.Digest.String()
	}
	digest, err := engine.ImageDigest(ctx, request.Name)
	if err != nil {
		return ""
	}
	return digest
}

// reporter decides what to report of the looks, and when.
type reporter struct {
	detected bool // the engine has answered once
	last     plugin.Fingerprint
	sent     time.Time
}

// next turns a look into the report to send, if one is due. A node whose engine never answered has no driver at all,
// rather than a broken one. Attributes that are gone are reported once as empty.
func (r *reporter) next(seen plugin.Fingerprint, now time.Time) (report plugin.Fingerprint, due bool) {
	if seen.Health == plugin.Healthy {
		r.detected = true
	} else if !r.detected {
		seen.Health = plugin.Undetected
	}
	changed := r.sent.IsZero() || seen.Health != r.last.Health || seen.Description != r.last.Description ||
		!maps.Equal(seen.Attributes, r.last.Attributes)
	if !changed && now.Sub(r.sent) < reportInterval {
		return plugin.Fingerprint{}, false
	}
	report = seen
	report.Attributes = maps.Clone(seen.Attributes)
	for name := range r.last.Attributes {
		if _, ok := report.Attributes[name]; !ok {
			report.Attributes[name] = ""
		}
	}
	r.last, r.sent = seen, now
	return report, true
}
