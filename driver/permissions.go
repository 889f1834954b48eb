package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
)

// permit says which options of a task the operator does not allow, all at once.
func (c *PluginConfig) permit(task *TaskConfig) error {
	var wrong []error
	if task.Privileged && !c.AllowPrivileged {
		wrong = append(wrong, errors.New("privileged: the plugin's allow_privileged is not set on this node"))
	}
	for option, mode := range task.namespaceModes() {
		if mode == "host" && !slices.Contains(c.AllowHostNamespaces, hostNamespaces[option]) {
			wrong = append(wrong, fmt.Errorf("%s host: the plugin's allow_host_namespaces on this node has no %q", option, hostNamespaces[option]))
		}
	}
	if !c.allowsRuntime(task.Runtime) {
		wrong = append(wrong, fmt.Errorf("runtime %q: the plugin's allow_runtimes on this node has only %s",
			task.Runtime, strings.Join(c.AllowRuntimes, ", ")))
	}
	if _, err := spec.Capabilities(c.AllowCaps, task.CapAdd, task.CapDrop); err != nil {
		wrong = append(wrong, err)
	}
	if c.PidsLimit > 0 && task.PidsLimit > c.PidsLimit {
		wrong = append(wrong, fmt.Errorf("pids_limit %d: the plugin's pids_limit on this node is %d", task.PidsLimit, c.PidsLimit))
	}
	for _, mount := range task.Mounts {
		if mount.Type == mountVolume && !c.Volumes.Enabled {
			wrong = append(wrong, fmt.Errorf("mount %s: named volumes need the plugin's volumes.enabled, which is not set on this node", mount.Source))
		}
	}
	return errors.Join(wrong...)
}

// runtimeName is a shim's full name.
func runtimeName(name string) string {
	switch name {
	case "runc":
		return "io.containerd.runc.v2"
	case "runsc":
		return "io.containerd.runsc.v1"
	case "kata":
		return "io.containerd.kata.v2"
	}
	return name
}

func (c *PluginConfig) allowsRuntime(name string) bool {
	name = runtimeName(name)
	return name == "" || name == c.Containerd.Runtime ||
		slices.ContainsFunc(c.AllowRuntimes, func(allowed string) bool { return runtimeName(allowed) == name })
}

// withDefaults fills in what a task leaves to the plugin's configuration.
func (c TaskConfig) withDefaults(plugin PluginConfig) TaskConfig {
	if c.Environment == "" && c.Image == "" && c.Load == "" {
		c.Environment = plugin.DefaultEnvironment
	}
	if c.PidsLimit == 0 {
		c.PidsLimit = plugin.PidsLimit
	}
	if c.ShmSize == 0 {
		c.ShmSize = plugin.ShmSize
	}
	c.Runtime = runtimeName(c.Runtime)
	if c.Runtime == "" {
		c.Runtime = plugin.Containerd.Runtime
	}
	return c
}
