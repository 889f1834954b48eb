package driver

import (
	"fmt"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// TaskConfig is the body of a task's config { } block. What each option means stands in taskOptions.
type TaskConfig struct {
	Environment      string     `codec:"environment"`
	Image            string     `codec:"image"`
	ImagePullPolicy  PullPolicy `codec:"image_pull_policy"`
	ImagePullTimeout string     `codec:"image_pull_timeout"`
	Load             string     `codec:"load"`
	Platform         string     `codec:"platform"`
	Auth             TaskAuth   `codec:"auth"`
	AuthSoftFail     bool       `codec:"auth_soft_fail"`

	Flow           string   `codec:"flow"`
	MaxConcurrency int      `codec:"max_concurrency"`
	Workers        int      `codec:"workers"`
	Ports          []string `codec:"ports"`

	Entrypoint []string `codec:"entrypoint"`
	Command    string   `codec:"command"`
	Args       []string `codec:"args"`
	WorkDir    string   `codec:"work_dir"`
	GroupAdd   []string `codec:"group_add"`
	TTY        bool     `codec:"tty"`
	Init       bool     `codec:"init"`

	Hostname         string   `codec:"hostname"`
	ExtraHosts       []string `codec:"extra_hosts"`
	DNSServers       []string `codec:"dns_servers"`
	DNSSearchDomains []string `codec:"dns_search_domains"`
	DNSOptions       []string `codec:"dns_options"`
	NetworkMode      string   `codec:"network_mode"`

	Mounts         []MountConfig  `codec:"mount"`
	Volumes        []string       `codec:"volumes"`
	Devices        []DeviceConfig `codec:"devices"`
	ReadonlyRootfs bool           `codec:"readonly_rootfs"`
	ShmSize        int64          `codec:"shm_size"`

	CapAdd          []string          `codec:"cap_add"`
	CapDrop         []string          `codec:"cap_drop"`
	Privileged      bool              `codec:"privileged"`
	NoNewPrivileges bool              `codec:"no_new_privileges"`
	SeccompProfile  string            `codec:"seccomp_profile"`
	ApparmorProfile string            `codec:"apparmor_profile"`
	Sysctl          map[string]string `codec:"sysctl"`
	Ulimit          map[string]string `codec:"ulimit"`
	PIDMode         string            `codec:"pid_mode"`
	IPCMode         string            `codec:"ipc_mode"`
	UTSMode         string            `codec:"uts_mode"`
	CgroupNS        string            `codec:"cgroupns"`

	PidsLimit        int64  `codec:"pids_limit"`
	OOMScoreAdj      int    `codec:"oom_score_adj"`
	CPUHardLimit     bool   `codec:"cpu_hard_limit"`
	CPUCFSPeriod     int64  `codec:"cpu_cfs_period"`
	MemoryHardLimit  int64  `codec:"memory_hard_limit"`
	MemorySwap       string `codec:"memory_swap"`
	MemorySwappiness *int64 `codec:"memory_swappiness"`

	Labels  map[string]string `codec:"labels"`
	Runtime string            `codec:"runtime"`
}

// TaskAuth are credentials for the registry of the task's image.
type TaskAuth struct {
	Username      string `codec:"username"`
	Password      string `codec:"password"`
	ServerAddress string `codec:"server_address"`
}

// MountConfig is a mount { } block of a task.
type MountConfig struct {
	Type         string       `codec:"type"`
	Source       string       `codec:"source"`
	Target       string       `codec:"target"`
	Readonly     bool         `codec:"readonly"`
	BindOptions  BindOptions  `codec:"bind_options"`
	TmpfsOptions TmpfsOptions `codec:"tmpfs_options"`
}

// BindOptions are what only a bind mount has.
type BindOptions struct {
	Propagation string `codec:"propagation"`
}

// TmpfsOptions are what only a tmpfs has: Size in bytes, Mode in octal.
type TmpfsOptions struct {
	Size int64  `codec:"size"`
	Mode string `codec:"mode"`
}

// DeviceConfig is a devices { } block of a task.
type DeviceConfig struct {
	HostPath          string `codec:"host_path"`
	ContainerPath     string `codec:"container_path"`
	CgroupPermissions string `codec:"cgroup_permissions"`
}

const defaultMaxConcurrency = 32

// defaultTaskConfig is what holds where a task says nothing.
func defaultTaskConfig() TaskConfig {
	return TaskConfig{
		ImagePullPolicy: PullIfNotPresent,
		MaxConcurrency:  defaultMaxConcurrency,
		NoNewPrivileges: true,
	}
}

// taskOptions are the options of a task. Environment has its default where the plugin's configuration is known too, which must
// see whether a job sets it beside image.
func taskOptions() []option {
	defaults := defaultTaskConfig()
	return []option{
		textOption("environment", "What to run: `name`, `name:version` or `name@sha256:…` of an environment. Without it and without `image` "+
			"the plugin's `default_environment`."),
		textOption("image", "Any image instead of an environment: `registry.example/team/nlp:3` or `…@sha256:…`."),
		textOr("image_pull_policy", string(defaults.ImagePullPolicy), "When to fetch: `if-not-present`, `always` (the copy on the node is used "+
			"only when it is the newest) or `never`."),
		textOption("image_pull_timeout", "Longest time for fetching and unpacking, such as `\"10m\"`; the plugin's `image_pull_timeout` without it."),
		textOption("load", "An image archive (of `docker save`, or an OCI layout in a tar) below the task's folder, such as `\"local/image.tar\"`, "+
			"loaded before the start. `image` then names one of its images; without `image` it must hold exactly one."),
		textOption("platform", "Which of an image's platforms to run, such as `\"linux/arm64\"`; the node's own without it."),
		blockOption("auth", "Credentials for the registry of `image`; they go before those of the plugin.",
			textOption("username", "User name."),
			textOption("password", "Password or token."),
			textOption("server_address", "The registry that the credentials are for; the image's own without it."),
		),
		boolOr("auth_soft_fail", defaults.AuthSoftFail, "Pull without credentials when those of the plugin cannot be read."),

		textOption("flow", "A bundle to load before the runtime is ready, served at `/score`."),
		numberOr("max_concurrency", int64(defaults.MaxConcurrency), "Runs at once in this instance."),
		numberOr("workers", int64(defaults.Workers), "Python workers per flow; 0 takes the number from the cpu share."),
		listOption("ports", "Labels of ports of the group's network; the runtime listens on the first."),

		listOption("entrypoint", "Replaces the image's entrypoint, and drops the image's command."),
		textOption("command", "Replaces the image's command."),
		listOption("args", "Arguments of `command`; without it they replace the image's command."),
		textOption("work_dir", "Working directory; the image's without it."),
		listOption("group_add", "More groups of the process, by the image's names or by number."),
		boolOr("tty", defaults.TTY, "Give the process a terminal; its standard error then goes to standard output."),
		boolOr("init", defaults.Init, "Run the command below a small init process that passes signals on and collects orphans."),

		textOption("hostname", "Host name of the container."),
		listOption("extra_hosts", "More lines of `/etc/hosts`, each `name:address`."),
		listOption("dns_servers", "Name servers, instead of those of the group's network or the node."),
		listOption("dns_search_domains", "Search domains, likewise."),
		listOption("dns_options", "Resolver options, likewise."),
		textOption("network_mode", "`host` for the node's network or `none` for nothing but a loopback. Without it the group's network holds "+
			"(host, bridge, none, cni/*)."),

		blocksOption("mount", "A bind mount, a tmpfs or a named volume.",
			textOr("type", "volume", "`bind`, `tmpfs` or `volume`."),
			textOption("source", "bind: a file or folder of the node, relative to the task's folder unless it begins with `/`. volume: its name."),
			textOption("target", "Where it is inside the container."),
			boolOr("readonly", false, "Not writable inside."),
			blockOption("bind_options", "Only for `bind`.",
				textOr("propagation", "rprivate", "`rprivate`, `rslave` or `rshared`, or without the r."),
			),
			blockOption("tmpfs_options", "Only for `tmpfs`.",
				numberOr("size", 0, "Bytes; 0 sets no limit but the task's memory."),
				textOption("mode", "File mode in octal, such as `\"1777\"`."),
			),
		),
		listOption("volumes", "Bind mounts in short: `source:target[:options]`, source as in `mount`, options such as `ro`. "+
			"A missing folder below the task's own is made."),
		blocksOption("devices", "A device of the node.",
			textOption("host_path", "Its path on the node."),
			textOption("container_path", "Its path inside; the same without it."),
			textOption("cgroup_permissions", "Any of `r`, `w`, `m`; all without it."),
		),
		boolOr("readonly_rootfs", defaults.ReadonlyRootfs, "Make the image's files read-only."),
		numberOr("shm_size", defaults.ShmSize, "Bytes of `/dev/shm`; 0 for the plugin's `shm_size`."),

		listOption("cap_add", "Linux capabilities to add, out of the plugin's `allow_caps`, or `all` of those."),
		listOption("cap_drop", "Linux capabilities to take away, or `all`."),
		boolOr("privileged", defaults.Privileged, "All rights and devices of the node. The plugin's `allow_privileged` must be set."),
		boolOr("no_new_privileges", defaults.NoNewPrivileges, "Keep programs from gaining rights, as by setuid."),
		textOption("seccomp_profile", "`unconfined`, or a file with a profile in docker's or OCI's form, relative to the task's folder. "+
			"Without it containerd's own profile."),
		textOption("apparmor_profile", "`unconfined`, or the name of a profile that is loaded on the node. Without it containerd's own where "+
			"the node has AppArmor."),
		pairsOption("sysctl", "Kernel parameters of the container's own namespaces."),
		pairsOption("ulimit", "Process limits: `nofile = \"2048:4096\"` (soft:hard) or one number for both."),
		textOption("pid_mode", "`host` for the node's processes; the plugin's `allow_host_namespaces` must have `pid`."),
		textOption("ipc_mode", "`host` likewise, with `ipc`."),
		textOption("uts_mode", "`host` likewise, with `uts`: the node's own host name."),
		textOption("cgroupns", "`host` likewise, with `cgroup`; `private` is the default with cgroup version 2."),

		numberOr("pids_limit", defaults.PidsLimit, "Processes and threads at most; 0 for the plugin's `pids_limit`, which cannot be exceeded."),
		numberOr("oom_score_adj", int64(defaults.OOMScoreAdj), "0 to 1000: how readily the kernel kills the task when memory runs out."),
		boolOr("cpu_hard_limit", defaults.CPUHardLimit, "Never use more than the task's part of the node's compute, also when the rest is idle."),
		numberOr("cpu_cfs_period", defaults.CPUCFSPeriod, "Microseconds over which `cpu_hard_limit` is measured, 1000 to 1000000; 0 for 100000."),
		numberOr("memory_hard_limit", defaults.MemoryHardLimit, "MB the task may grow to beyond its `memory`; the job's `memory_max` does "+
			"the same where the scheduler knows of it."),
		textOption("memory_swap", "Memory and swap together, such as `\"512m\"`, or `\"-1\"` for no limit. Without it the task has no swap."),
		numberOption("memory_swappiness", "0 to 100: how readily the kernel swaps the task out; cgroup version 1 only."),

		pairsOption("labels", "Labels of the container."),
		textOption("runtime", "`runc`, `runsc`, `kata` or a shim's full name, out of the plugin's `allow_runtimes`; the plugin's "+
			"`containerd.runtime` without it."),
	}
}

// TaskConfigSchema describes TaskConfig to the agent.
func (d *Driver) TaskConfigSchema() *hclspec.Spec { return schemaOf(taskOptions()) }

// decodeTaskConfig reads a task's configuration over the defaults and validates it.
func decodeTaskConfig(encoded []byte) (TaskConfig, error) {
	config := defaultTaskConfig()
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

// pullTimeout is the task's own bound on fetching its image, or the plugin's.
func (c *TaskConfig) pullTimeout(plugin PluginConfig) time.Duration {
	if own, err := time.ParseDuration(c.ImagePullTimeout); err == nil {
		return own
	}
	return plugin.pullTimeout
}
