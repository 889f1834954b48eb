package driver

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// TaskConfig is the body of a task's config { } block.
type TaskConfig struct {
	// Environment is "name" or "name:version"; Image is any image reference. At most one is set.
	Environment     string     `codec:"environment"`
	Image           string     `codec:"image"`
	ImagePullPolicy PullPolicy `codec:"image_pull_policy"`
	// Flow is a bundle to load before the runtime is ready.
	Flow string `codec:"flow"`
	// MaxConcurrency is how many runs may go on at once in this instance.
	MaxConcurrency int `codec:"max_concurrency"`
	// Workers is the number of Python workers per flow; 0 takes it from the cpu share.
	Workers int `codec:"workers"`
	// Ports are labels of the group's network; the runtime listens on the first.
	Ports          []string          `codec:"ports"`
	Entrypoint     []string          `codec:"entrypoint"`
	Command        string            `codec:"command"`
	Args           []string          `codec:"args"`
	WorkDir        string            `codec:"work_dir"`
	Labels         map[string]string `codec:"labels"`
	ReadonlyRootfs bool              `codec:"readonly_rootfs"`
	Hostname       string            `codec:"hostname"`
}

const (
	defaultEnvironment    = "default"
	defaultMaxConcurrency = 32
)

// TaskConfigSchema describes TaskConfig to the agent. Environment has its default in validate, which must see whether a job
// sets it beside image.
func (d *Driver) TaskConfigSchema() *hclspec.Spec {
	return hclspec.Object(map[string]*hclspec.Spec{
		"environment":       hclspec.Attr("environment", "string", false),
		"image":             hclspec.Attr("image", "string", false),
		"image_pull_policy": hclspec.String("image_pull_policy", string(PullIfNotPresent)),
		"flow":              hclspec.Attr("flow", "string", false),
		"max_concurrency":   hclspec.Number("max_concurrency", defaultMaxConcurrency),
		"workers":           hclspec.Number("workers", 0),
		"ports":             hclspec.Attr("ports", "list(string)", false),
		"entrypoint":        hclspec.Attr("entrypoint", "list(string)", false),
		"command":           hclspec.Attr("command", "string", false),
		"args":              hclspec.Attr("args", "list(string)", false),
		"work_dir":          hclspec.Attr("work_dir", "string", false),
		"labels":            hclspec.BlockAttrs("labels", "string", false),
		"readonly_rootfs":   hclspec.Bool("readonly_rootfs", false),
		"hostname":          hclspec.Attr("hostname", "string", false),
	})
}

// decodeTaskConfig reads a task's configuration, fills in defaults and validates it.
func decodeTaskConfig(encoded []byte) (TaskConfig, error) {
	config := TaskConfig{ImagePullPolicy: PullIfNotPresent, MaxConcurrency: defaultMaxConcurrency}
	if len(encoded) > 0 {
		if err := plugin.DecodeConfig(encoded, &config); err != nil {
			return TaskConfig{}, fmt.Errorf("decode task configuration: %w", err)
		}
	}
	if err := config.validate(); err != nil {
		return TaskConfig{}, fmt.Errorf("task configuration: %w", err)
	}
	return config, nil
}

// validate checks every option and names the wrong one.
func (c *TaskConfig) validate() error {
	if c.Environment != "" && c.Image != "" {
		return errors.New("environment and image: only one of them may be set")
	}
	if c.Environment == "" && c.Image == "" {
		c.Environment = defaultEnvironment
	}
	if c.MaxConcurrency <= 0 {
		return fmt.Errorf("max_concurrency %d: must be above zero", c.MaxConcurrency)
	}
	if c.Workers < 0 {
		return fmt.Errorf("workers %d: must be zero (from the cpu share) or above", c.Workers)
	}
	if c.WorkDir != "" && !path.IsAbs(c.WorkDir) {
		return fmt.Errorf("work_dir %q: must be an absolute path", c.WorkDir)
	}
	return errors.Join(c.validatePolicy(), c.validateLabels(), c.validateHostname())
}

func (c *TaskConfig) validatePolicy() error {
	switch c.ImagePullPolicy {
	case PullIfNotPresent, PullAlways, PullNever:
	default:
		return fmt.Errorf("image_pull_policy %q: must be %s, %s or %s",
			c.ImagePullPolicy, PullIfNotPresent, PullAlways, PullNever)
	}
	return nil
}

// maxLabel is how many bytes containerd allows for a label's name and value together.
const maxLabel = 4096

// validateLabels keeps a task's labels out of the names that steer containerd's own garbage collection.
func (c *TaskConfig) validateLabels() error {
	for name, value := range c.Labels {
		switch {
		case name == "":
			return errors.New("labels: a label needs a name")
		case strings.HasPrefix(name, "containerd.io/"):
			return fmt.Errorf("labels %q: names below containerd.io/ are containerd's own", name)
		case len(name)+len(value) > maxLabel:
			return fmt.Errorf("labels %q: name and value are longer than %d bytes", name, maxLabel)
		}
	}
	return nil
}

// maxHostname is the kernel's limit.
const maxHostname = 64

func (c *TaskConfig) validateHostname() error {
	if len(c.Hostname) > maxHostname || strings.ContainsAny(c.Hostname, " \t\n/") {
		return fmt.Errorf("hostname %q: must be a host name of at most %d characters", c.Hostname, maxHostname)
	}
	return nil
}
