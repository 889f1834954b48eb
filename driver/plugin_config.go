package driver

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// PluginConfig is the body of the agent's plugin "nomad-promptflow" { config { } } block. What each option means stands in
// pluginOptions.
type PluginConfig struct {
	Containerd    ContainerdConfig `codec:"containerd"`
	AllowRuntimes []string         `codec:"allow_runtimes"`

	Environments          string                    `codec:"environments"`
	EnvironmentRepository string                    `codec:"environment_repository"`
	DefaultEnvironment    string                    `codec:"default_environment"`
	Registries            map[string]RegistryConfig `codec:"registry"`
	Auth                  AuthConfig                `codec:"auth"`
	ImagePullTimeout      string                    `codec:"image_pull_timeout"`
	PullActivityTimeout   string                    `codec:"pull_activity_timeout"`
	PullConcurrency       int                       `codec:"pull_concurrency"`

	GC      GCConfig      `codec:"gc"`
	Volumes VolumesConfig `codec:"volumes"`

	AllowPrivileged     bool     `codec:"allow_privileged"`
	AllowCaps           []string `codec:"allow_caps"`
	AllowHostNamespaces []string `codec:"allow_host_namespaces"`
	PidsLimit           int64    `codec:"pids_limit"`
	ShmSize             int64    `codec:"shm_size"`

	ExtraLabels          []string `codec:"extra_labels"`
	DisableLogCollection bool     `codec:"disable_log_collection"`

	pullTimeout, activityTimeout time.Duration
}

// ContainerdConfig says which containerd to use and how.
type ContainerdConfig struct {
	Address     string `codec:"address"`
	Namespace   string `codec:"namespace"`
	Snapshotter string `codec:"snapshotter"`
	Runtime     string `codec:"runtime"`
}

// RegistryConfig says how to reach one registry. Its name is the block's label.
type RegistryConfig struct {
	Mirrors            []string `codec:"mirrors"`
	CAFile             string   `codec:"ca_file"`
	CertFile           string   `codec:"cert_file"`
	KeyFile            string   `codec:"key_file"`
	InsecureSkipVerify bool     `codec:"insecure_skip_verify"`
	PlainHTTP          bool     `codec:"plain_http"`
	Username           string   `codec:"username"`
	Password           string   `codec:"password"`
}

// AuthConfig says where credentials for registries come from: a docker configuration file, and a credential helper.
type AuthConfig struct {
	Config string `codec:"config"`
	Helper string `codec:"helper"`
}

// GCConfig says what is removed when it is no longer used.
type GCConfig struct {
	Image              bool           `codec:"image"`
	ImageDelay         string         `codec:"image_delay"`
	Container          bool           `codec:"container"`
	ContainerDelay     string         `codec:"container_delay"`
	DanglingContainers DanglingConfig `codec:"dangling_containers"`

	imageDelay, containerDelay time.Duration
}

// DanglingConfig says when containers that no task knows are removed.
type DanglingConfig struct {
	Enabled       bool   `codec:"enabled"`
	Period        string `codec:"period"`
	CreationGrace string `codec:"creation_grace"`

	period, creationGrace time.Duration
}

// VolumesConfig says which files of the node tasks may mount.
type VolumesConfig struct {
	Enabled      bool     `codec:"enabled"`
	Path         string   `codec:"path"`
	AllowedPaths []string `codec:"allowed_paths"`
}

// defaultPluginConfig is what holds where the agent's configuration says nothing.
func defaultPluginConfig() PluginConfig {
	return PluginConfig{
		Containerd: ContainerdConfig{
			Address:     "/run/containerd/containerd.sock",
			Namespace:   "nomad",
			Snapshotter: "overlayfs",
			Runtime:     "io.containerd.runc.v2",
		},
		AllowRuntimes:       []string{"runc", "runsc", "kata"},
		Environments:        "/var/lib/nomad-promptflow/environments",
		DefaultEnvironment:  "default",
		ImagePullTimeout:    "5m",
		PullActivityTimeout: "2m",
		PullConcurrency:     2,
		GC: GCConfig{
			Image: true, ImageDelay: "3m", Container: true, ContainerDelay: "0s",
			DanglingContainers: DanglingConfig{Enabled: true, Period: "5m", CreationGrace: "5m"},
		},
		Volumes:     VolumesConfig{Path: "/var/lib/nomad-promptflow/volumes"},
		AllowCaps:   spec.DefaultCapabilities(),
		ShmSize:     64 << 20,
		ExtraLabels: []string{"job_*", "task_*", "namespace"},
	}
}

// pluginOptions are the options of the plugin.
func pluginOptions() []option {
	defaults := defaultPluginConfig()
	gc, dangling := defaults.GC, defaults.GC.DanglingContainers
	return []option{
		blockOption("containerd", "The containerd that runs the tasks.",
			textOr("address", defaults.Containerd.Address, "Its unix socket."),
			textOr("namespace", defaults.Containerd.Namespace, "The containerd namespace for everything the driver makes."),
			textOr("snapshotter", defaults.Containerd.Snapshotter, "Its snapshotter."),
			textOr("runtime", defaults.Containerd.Runtime, "The runtime of tasks that name none: a name as in `allow_runtimes`."),
		),
		listOr("allow_runtimes", defaults.AllowRuntimes, "Runtimes that tasks may ask for: `runc`, `runsc`, `kata` or a shim's full name, such as "+
			"`io.containerd.runsc.v1`. The default runtime is always allowed."),

		textOr("environments", defaults.Environments, "Folder of the OCI layout that holds environments."),
		textOption("environment_repository", "Where a registry has environments that the folder does not: `registry.example/promptflow` "+
			"for `registry.example/promptflow/NAME:VERSION`."),
		textOr("default_environment", defaults.DefaultEnvironment, "Environment of tasks that name neither environment nor image."),
		labelledOption("registry", "host[:port]", "How to reach one registry.",
			listOption("mirrors", "Hosts or addresses to ask first, in order."),
			textOption("ca_file", "Certificates of the authorities to believe, in PEM."),
			textOption("cert_file", "Certificate to show to the registry, in PEM; with `key_file`."),
			textOption("key_file", "Its key."),
			boolOr("insecure_skip_verify", false, "Believe any certificate."),
			boolOr("plain_http", false, "Speak HTTP. A registry on this machine's loopback address needs no word of it."),
			textOption("username", "User name."),
			textOption("password", "Password or token."),
		),
		blockOption("auth", "Credentials for all registries.",
			textOption("config", "A docker configuration file: `auths`, `credHelpers` and `credsStore` of it are used."),
			textOption("helper", "Name of a credential helper: `ecr-login` runs `docker-credential-ecr-login`."),
		),
		textOr("image_pull_timeout", defaults.ImagePullTimeout, "Longest time for fetching and unpacking one image."),
		textOr("pull_activity_timeout", defaults.PullActivityTimeout, "A fetch from which nothing came for so long is given up and may be tried again."),
		numberOr("pull_concurrency", int64(defaults.PullConcurrency), "Images fetched and unpacked at once."),

		blockOption("gc", "What is removed when it is no longer used.",
			boolOr("image", gc.Image, "Remove images that the driver fetched and no task uses."),
			textOr("image_delay", gc.ImageDelay, "How long after their last task."),
			boolOr("container", gc.Container, "Remove a container when its task is destroyed; without it its files stay for a look."),
			textOr("container_delay", gc.ContainerDelay, "How long after that."),
			blockOption("dangling_containers", "Containers of this node and driver that no task knows.",
				boolOr("enabled", dangling.Enabled, "Remove them."),
				textOr("period", dangling.Period, "How often they are looked for."),
				textOr("creation_grace", dangling.CreationGrace, "How old one must be."),
			),
		),
		blockOption("volumes", "Files of the node that tasks may mount. Without `enabled` only those of their own allocation.",
			boolOr("enabled", defaults.Volumes.Enabled, "Allow bind mounts from outside the allocation, and named volumes."),
			textOr("path", defaults.Volumes.Path, "Folder of the named volumes."),
			listOption("allowed_paths", "Folders that bind mounts must lie in; any without it."),
		),

		boolOr("allow_privileged", defaults.AllowPrivileged, "Allow `privileged` tasks."),
		listOr("allow_caps", defaults.AllowCaps, "Capabilities that tasks may have, in any spelling; `all` for all."),
		listOption("allow_host_namespaces", "Namespaces of the node that tasks may share: any of `pid`, `ipc`, `uts`, `cgroup`."),
		numberOr("pids_limit", defaults.PidsLimit, "Processes and threads of a task at most; 0 sets no limit."),
		numberOr("shm_size", defaults.ShmSize, "Bytes of a task's `/dev/shm`."),

		listOr("extra_labels", defaults.ExtraLabels, "What of a task becomes a label of its container, as `com.hashicorp.nomad.NAME`, by patterns: "+
			"job_name, job_id, task_group_name, task_name, namespace, node_name, node_id."),
		boolOr("disable_log_collection", defaults.DisableLogCollection, "Have no log collector for tasks, and throw their output away."),
	}
}

// ConfigSchema describes PluginConfig to the agent.
func (d *Driver) ConfigSchema() *hclspec.Spec { return schemaOf(pluginOptions()) }

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

// validate checks every option and names the wrong ones, all at once. Nothing that they name needs to be there.
func (c *PluginConfig) validate() error {
	return errors.Join(
		c.Containerd.validate(),
		absolute("environments", c.Environments),
		absolute("volumes.path", c.Volumes.Path),
		c.validateAllowed(),
		c.validateRegistries(),
		c.validateDurations(),
		c.validateNumbers(),
	)
}

func absolute(name, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s %q: must be an absolute path", name, path)
	}
	return nil
}

func (c *ContainerdConfig) validate() error {
	var wrong []error
	if !filepath.IsAbs(c.Address) {
		wrong = append(wrong, fmt.Errorf("containerd.address %q: must be the absolute path of a unix socket", c.Address))
	}
	for option, value := range map[string]string{
		"namespace": c.Namespace, "snapshotter": c.Snapshotter, "runtime": c.Runtime,
	} {
		if value == "" {
			wrong = append(wrong, fmt.Errorf("containerd.%s: must not be empty", option))
		}
	}
	c.Runtime = runtimeName(c.Runtime)
	return errors.Join(wrong...)
}

// hostNamespaces are those of the node that an operator may let tasks share, with the option by which a task asks.
var hostNamespaces = map[string]string{"pid_mode": "pid", "ipc_mode": "ipc", "uts_mode": "uts", "cgroupns": "cgroup"}

func (c *PluginConfig) validateAllowed() error {
	var wrong []error
	for _, capability := range c.AllowCaps {
		if !spec.IsCapability(capability) {
			wrong = append(wrong, fmt.Errorf("allow_caps %q: the kernel has no such capability", capability))
		}
	}
	for _, name := range c.AllowHostNamespaces {
		known := false
		for _, namespace := range hostNamespaces {
			known = known || name == namespace
		}
		if !known {
			wrong = append(wrong, fmt.Errorf("allow_host_namespaces %q: must be pid, ipc, uts or cgroup", name))
		}
	}
	for _, path := range c.Volumes.AllowedPaths {
		wrong = append(wrong, absolute("volumes.allowed_paths", path))
	}
	for _, pattern := range c.ExtraLabels {
		if _, err := filepath.Match(pattern, ""); err != nil {
			wrong = append(wrong, fmt.Errorf("extra_labels %q: not a pattern", pattern))
		}
	}
	if slices.Contains(c.AllowRuntimes, "") {
		wrong = append(wrong, errors.New("allow_runtimes: a runtime needs a name"))
	}
	return errors.Join(wrong...)
}

func (c *PluginConfig) validateRegistries() error {
	_, err := registry.New(c.registries())
	return err
}

// validateDurations also reads them.
func (c *PluginConfig) validateDurations() error {
	var wrong []error
	for _, d := range []struct {
		name, text string
		zero       bool // may be zero
		into       *time.Duration
	}{
		{"image_pull_timeout", c.ImagePullTimeout, false, &c.pullTimeout},
		{"pull_activity_timeout", c.PullActivityTimeout, false, &c.activityTimeout},
		{"gc.image_delay", c.GC.ImageDelay, true, &c.GC.imageDelay},
		{"gc.container_delay", c.GC.ContainerDelay, true, &c.GC.containerDelay},
		{"gc.dangling_containers.period", c.GC.DanglingContainers.Period, false, &c.GC.DanglingContainers.period},
		{"gc.dangling_containers.creation_grace", c.GC.DanglingContainers.CreationGrace, true, &c.GC.DanglingContainers.creationGrace},
	} {
		duration, err := time.ParseDuration(d.text)
		if err != nil || duration < 0 || (duration == 0 && !d.zero) {
			wrong = append(wrong, fmt.Errorf(`%s %q: must be a duration, such as "5m"`, d.name, d.text))
			continue
		}
		*d.into = duration
	}
	return errors.Join(wrong...)
}

func (c *PluginConfig) validateNumbers() error {
	var wrong []error
	if c.PullConcurrency <= 0 {
		wrong = append(wrong, fmt.Errorf("pull_concurrency %d: must be above zero", c.PullConcurrency))
	}
	if c.PidsLimit < 0 {
		wrong = append(wrong, fmt.Errorf("pids_limit %d: must not be below zero", c.PidsLimit))
	}
	if c.ShmSize <= 0 {
		wrong = append(wrong, fmt.Errorf("shm_size %d: must be above zero", c.ShmSize))
	}
	return errors.Join(wrong...)
}
