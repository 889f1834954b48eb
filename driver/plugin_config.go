package driver

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// PluginConfig is the body of the agent's plugin "nomad-promptflow" { config { } } block.
type PluginConfig struct {
	Containerd ContainerdConfig `codec:"containerd"`
	// Environments is the folder of the OCI layout that holds the environments.
	Environments string `codec:"environments"`
	// ImagePullTimeout bounds fetching and unpacking one image.
	ImagePullTimeout string `codec:"image_pull_timeout"`
	// GCContainer removes a container when its task is destroyed; without it the container's files stay for a look.
	GCContainer *bool `codec:"gc_container"`

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

const defaultImagePullTimeout = "5m"

func defaultPluginConfig() PluginConfig {
	gc := true
	return PluginConfig{
		Containerd: ContainerdConfig{
			Address:     "/run/containerd/containerd.sock",
			Namespace:   "nomad",
			Snapshotter: "overlayfs",
			Runtime:     "io.containerd.runc.v2",
		},
		Environments:     "/var/lib/nomad-promptflow/environments",
		ImagePullTimeout: defaultImagePullTimeout,
		GCContainer:      &gc,
	}
}

func (c PluginConfig) engine() EngineConfig { return c.Containerd }

// decodePluginConfig reads the configuration, fills in defaults and validates it.
func decodePluginConfig(encoded []byte) (PluginConfig, error) {
	var config PluginConfig
	if len(encoded) > 0 {
		if err := plugin.DecodeConfig(encoded, &config); err != nil {
			return PluginConfig{}, fmt.Errorf("decode plugin configuration: %w", err)
		}
	}
	config.fillDefaults()
	return config, config.validate()
}

func (c *PluginConfig) fillDefaults() {
	defaults := defaultPluginConfig()
	fill(&c.Containerd.Address, defaults.Containerd.Address)
	fill(&c.Containerd.Namespace, defaults.Containerd.Namespace)
	fill(&c.Containerd.Snapshotter, defaults.Containerd.Snapshotter)
	fill(&c.Containerd.Runtime, defaults.Containerd.Runtime)
	fill(&c.Environments, defaults.Environments)
	fill(&c.ImagePullTimeout, defaults.ImagePullTimeout)
	if c.GCContainer == nil {
		c.GCContainer = defaults.GCContainer
	}
}

func fill(value *string, fallback string) {
	if *value == "" {
		*value = fallback
	}
}

func (c *PluginConfig) validate() error {
	if !filepath.IsAbs(c.Containerd.Address) {
		return fmt.Errorf("containerd.address %q: must be the absolute path of a unix socket", c.Containerd.Address)
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
