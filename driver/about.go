package driver

import "github.com/nomad-promptflow/nomad-promptflow/plugin"

// Name is what a job writes as its driver.
const Name = "promptflow"

// Info names the plugin.
func (d *Driver) Info() plugin.Info {
	return plugin.Info{Name: Name, Version: d.parts.Version}
}

// Capabilities of the driver. Tasks see their image and nothing of the node; networks are made by the agent, so that bridge
// and CNI work as they do for every other driver.
func (d *Driver) Capabilities() plugin.Capabilities {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return plugin.Capabilities{
		SendSignals:  true,
		Exec:         true,
		FSIsolation:  plugin.FSIsolationImage,
		NetworkModes: []plugin.NetworkMode{plugin.NetworkHost, plugin.NetworkGroup, plugin.NetworkNone},

		DisableLogCollection: d.config.DisableLogCollection,
	}
}
