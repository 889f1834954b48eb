package driver

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// PluginConfig is the body of the agent's plugin "nomad-promptflow" { config { } } block.
type PluginConfig struct {
	Containerd ContainerdConfig `codec:"containerd"`
	// Environments is the folder of the OCI layout that holds the environments.
	Environments string `codec:"environments"`
	// ImagePullTimeout bounds fetching and unpacking one image.
	ImagePullTimeout string `codec:"image_pull_timeout"`
	// GCContainer removes a container when its task is destroyed; without it the container's files stay for a look.
	GCContainer bool `codec:"gc_container"`

	pullTimeout time.Duration
}

// ContainerdConfig says which containerd to use and how.
type ContainerdConfig struct {
	Address     string `codec:"address"`
	Namespace   string `codec:"namespace"`
	Snapshotter string `codec:"snapshotter"`
	Runtime     string `codec:"runtime"`
}

// EngineConfig is what an engine needs of the configuration.
type EngineConfig = ContainerdConfig

// defaultPluginConfig is what holds where the agent's configuration says nothing.
func defaultPluginConfig() PluginConfig {
	return PluginConfig{
		Containerd: ContainerdConfig{
			Address:     "/run/containerd/containerd.sock",
			Namespace:   "nomad",
			Snapshotter: "overlayfs",
			Runtime:     "io.containerd.runc.v2",
		},
		Environments:     "/var/lib/nomad-promptflow/environments",
		ImagePullTimeout: "5m",
		GCContainer:      true,
	}
}

// ConfigSchema describes PluginConfig to the agent.
func (d *Driver) ConfigSchema() *hclspec.Spec {
	defaults := defaultPluginConfig()
	return hclspec.Object(map[string]*hclspec.Spec{
		"containerd": hclspec.Block("containerd", false, hclspec.Object(map[string]*hclspec.Spec{
			"address":     hclspec.String("address", defaults.Containerd.Address),
			"namespace":   hclspec.String("namespace", defaults.Containerd.Namespace),
			"snapshotter": hclspec.String("snapshotter", defaults.Containerd.Snapshotter),
			"runtime":     hclspec.String("runtime", defaults.Containerd.Runtime),
		})),
		"environments":       hclspec.String("environments", defaults.Environments),
		"image_pull_timeout": hclspec.String("image_pull_timeout", defaults.ImagePullTimeout),
		"gc_container":       hclspec.Bool("gc_container", defaults.GCContainer),
	})
}

// decodePluginConfig reads the configuration over the defaults and validates it.
func decodePluginConfig(encoded []byte) (PluginConfig, error) {
	config := defaultPluginConfig()
	if len(encoded) > 0 {
		if err := plugin.DecodeConfig(encoded, &config); err != nil {
			return PluginConfig{}, fmt.Errorf("decode plugin configuration: %w", err)
		}
	}
	return config, config.validate()
}

func (c *PluginConfig) validate() error {
	if !filepath.IsAbs(c.Containerd.Address) {
		return fmt.Errorf("containerd.address %q: must be the absolute path of a unix socket", c.Containerd.Address)
	}
	for option, value := range map[string]string{
		"namespace": c.Containerd.Namespace, "snapshotter": c.Containerd.Snapshotter, "runtime": c.Containerd.Runtime,
	} {
		if value == "" {
			return fmt.Errorf("containerd.%s: must not be empty", option)
		}
	}
	if !filepath.IsAbs(c.Environments) {
		return fmt.Errorf("environments %q: must be an absolute path", c.Environments)
	}
	timeout, err := time.ParseDuration(c.ImagePullTimeout)
	if err != nil || timeout <= 0 {
		return fmt.Errorf(`image_pull_timeout %q: must be a duration above zero, such as "5m"`, c.ImagePullTimeout)
	}
	c.pullTimeout = timeout
	return nil
}
