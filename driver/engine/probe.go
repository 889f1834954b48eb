package engine

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/plugins"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// Probe asks for the daemon's version and whether it has the snapshotter, and looks for the shims of the runtimes.
func (e *Engine) Probe(ctx context.Context, runtimes []string) (driver.EngineInfo, error) {
	version, err := e.client.Version(ctx)
	if err != nil {
		return driver.EngineInfo{}, fmt.Errorf("ask containerd for its version: %w", explain(err))
	}
	if _, err := e.pluginRoot(ctx, plugins.SnapshotPlugin.String(), e.config.Snapshotter); err != nil {
		return driver.EngineInfo{}, err
	}
	return driver.EngineInfo{Version: version.Version, Runtimes: withShim(ctx, e.config.Address, runtimes)}, nil
}

// pluginRoot is the folder in which a plugin of the daemon keeps its data, empty when it does not say. It fails for a
// plugin that the daemon has not, or could not start.
func (e *Engine) pluginRoot(ctx context.Context, kind, id string) (string, error) {
	response, err := e.client.IntrospectionService().Plugins(ctx, fmt.Sprintf("type==%s,id==%s", kind, id))
	if err != nil {
		return "", fmt.Errorf("ask containerd for its plugins: %w", explain(err))
	}
	if len(response.Plugins) == 0 {
		return "", fmt.Errorf("containerd has no %s %q: set containerd.snapshotter to one it has", kind, id)
	}
	found := response.Plugins[0]
	if found.InitErr != nil {
		return "", fmt.Errorf("containerd could not start its %s %q: %s", kind, id, found.InitErr.Message)
	}
	return found.Exports["root"], nil
}
