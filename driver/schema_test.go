package driver

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

var update = flag.Bool("update", false, "write the options page instead of comparing it")

func TestOptionsPage_isCurrent(t *testing.T) {
	var page bytes.Buffer
	must.NoError(t, WriteOptionsPage(&page))
	path := filepath.Join("..", "docs", "options.md")
	if *update {
		must.NoError(t, os.WriteFile(path, page.Bytes(), 0o644))
	}
	committed, err := os.ReadFile(path)
	must.NoError(t, err)
	must.Eq(t, string(committed), page.String(), must.Sprint("make options-page writes it"))
}

func TestOptions_areDescribed(t *testing.T) {
	t.Parallel()
	var check func(prefix string, options []option)
	check = func(prefix string, options []option) {
		seen := map[string]bool{}
		for _, o := range options {
			test.NotEq(t, "", o.about, test.Sprint(prefix+o.name))
			test.False(t, seen[o.name], test.Sprint(prefix+o.name, " stands twice"))
			seen[o.name] = true
			check(prefix+o.name+".", o.members)
		}
	}
	check("task ", taskOptions())
	check("plugin ", pluginOptions())
}

// same compares configurations where it makes no difference whether a list is missing or empty.
func same(t *testing.T, want, got any) {
	t.Helper()
	must.Eq(t, "", cmp.Diff(want, got, cmpopts.EquateEmpty(),
		cmp.AllowUnexported(PluginConfig{}, GCConfig{}, DanglingConfig{})))
}

// The schemas and the structs they decode into must agree: what a job writes goes the agent's whole way here.
func TestTaskConfigSchema_takesEveryOption(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	decode := func(text string) TaskConfig {
		t.Helper()
		encoded, err := agent.DecodeConfig(d.TaskConfigSchema(), text, nil)
		must.NoError(t, err)
		config, err := decodeTaskConfig(encoded)
		must.NoError(t, err)
		return config
	}
	same(t, defaultTaskConfig(), decode(``))
	swappiness := int64(10)
	same(t, TaskConfig{
		Image: "team/image:3", ImagePullPolicy: PullAlways, ImagePullTimeout: "10m", Load: "local/image.tar", Platform: "linux/arm64",
		Auth:         TaskAuth{Username: "me", Password: "secret", ServerAddress: "registry.example"},
		AuthSoftFail: true,
		Flow:         "triage@sha256:abc", MaxConcurrency: 7, Workers: 2, Ports: []string{"http", "admin"},
		Entrypoint: []string{"/bin/sh", "-c"}, Command: "serve", Args: []string{"--verbose"}, WorkDir: "/srv",
		GroupAdd: []string{"video", "44"}, TTY: true, Init: true,
		Hostname: "flow", ExtraHosts: []string{"db:10.0.0.7"}, DNSServers: []string{"10.0.0.1"},
		DNSSearchDomains: []string{"a.test"}, DNSOptions: []string{"ndots:2"}, NetworkMode: "host",
		Mounts: []MountConfig{
			{Type: "bind", Source: "local/x", Target: "/x", Readonly: true, BindOptions: BindOptions{Propagation: "rslave"}},
			{Type: "tmpfs", Target: "/t", BindOptions: BindOptions{}, TmpfsOptions: TmpfsOptions{Size: 1000, Mode: "1777"}},
			{Type: "volume", Source: "data", Target: "/data"},
		},
		Volumes: []string{"local/y:/y:ro"},
		Devices: []DeviceConfig{
			{HostPath: "/dev/fuse", ContainerPath: "/dev/f", CgroupPermissions: "rw"}, {HostPath: "/dev/null"},
		},
		ReadonlyRootfs: true, ShmSize: 1 << 20,
		CapAdd: []string{"net_raw"}, CapDrop: []string{"all"}, Privileged: true, NoNewPrivileges: false,
		SeccompProfile: "unconfined", ApparmorProfile: "mine",
		Sysctl: map[string]string{"net.core.somaxconn": "16384"}, Ulimit: map[string]string{"nofile": "1024:2048"},
		PIDMode: "host", IPCMode: "private", UTSMode: "host", CgroupNS: "host",
		PidsLimit: 100, OOMScoreAdj: 300, CPUHardLimit: true, CPUCFSPeriod: 20000,
		MemoryHardLimit: 512, MemorySwap: "1g", MemorySwappiness: &swappiness,
		Labels: map[string]string{"team": "nlp"}, Runtime: "runsc",
	}, decode(`
		image              = "team/image:3"
		image_pull_policy  = "always"
		image_pull_timeout = "10m"
		load               = "local/image.tar"
		platform           = "linux/arm64"
		auth {
			username       = "me"
			password       = "secret"
			server_address = "registry.example"
		}
		auth_soft_fail     = true
		flow               = "triage@sha256:abc"
		max_concurrency    = 7
		workers            = 2
		ports              = ["http", "admin"]
		entrypoint         = ["/bin/sh", "-c"]
		command            = "serve"
		args               = ["--verbose"]
		work_dir           = "/srv"
		group_add          = ["video", "44"]
		tty                = true
		init               = true
		hostname           = "flow"
		extra_hosts        = ["db:10.0.0.7"]
		dns_servers        = ["10.0.0.1"]
		dns_search_domains = ["a.test"]
		dns_options        = ["ndots:2"]
		network_mode       = "host"
		mount {
			type     = "bind"
			source   = "local/x"
			target   = "/x"
			readonly = true
			bind_options { propagation = "rslave" }
		}
		mount {
			type   = "tmpfs"
			target = "/t"
			tmpfs_options {
				size = 1000
				mode = 1777
			}
		}
		mount {
			source = "data"
			target = "/data"
		}
		volumes            = ["local/y:/y:ro"]
		devices = [
			{ host_path = "/dev/fuse", container_path = "/dev/f", cgroup_permissions = "rw" },
			{ host_path = "/dev/null" },
		]
		readonly_rootfs    = true
		shm_size           = 1048576
		cap_add            = ["net_raw"]
		cap_drop           = ["all"]
		privileged         = true
		no_new_privileges  = false
		seccomp_profile    = "unconfined"
		apparmor_profile   = "mine"
		sysctl             = { "net.core.somaxconn" = "16384" }
		ulimit {
			nofile = "1024:2048"
		}
		pid_mode           = "host"
		ipc_mode           = "private"
		uts_mode           = "host"
		cgroupns           = "host"
		pids_limit         = 100
		oom_score_adj      = 300
		cpu_hard_limit     = true
		cpu_cfs_period     = 20000
		memory_hard_limit  = 512
		memory_swap        = "1g"
		memory_swappiness  = 10
		labels {
			team = "nlp"
		}
		runtime            = "runsc"
	`))
	test.Eq(t, "team:3", decode(`environment = "team:3"`).Environment)
}

func TestConfigSchema_takesEveryOption(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	decode := func(text string) PluginConfig {
		t.Helper()
		encoded, err := agent.DecodeConfig(d.ConfigSchema(), text, nil)
		must.NoError(t, err)
		config, err := decodePluginConfig(encoded)
		must.NoError(t, err)
		return config
	}
	want := defaultPluginConfig()
	must.NoError(t, want.validate())
	same(t, want, decode(``))
	same(t, want, decode("containerd { }\ngc {\ndangling_containers { }\n}\nvolumes { }\nauth { }"))

	want = PluginConfig{
		Containerd:    ContainerdConfig{Address: "/a.sock", Namespace: "n", Snapshotter: "native", Runtime: "io.containerd.runsc.v1"},
		AllowRuntimes: []string{"kata"},
		Environments:  "/env", EnvironmentRepository: "registry.example/pf", DefaultEnvironment: "base",
		Registries: map[string]RegistryConfig{"registry.example:5000": {
			Mirrors: []string{"mirror.example"}, CAFile: "/ca", CertFile: "/cert", KeyFile: "/key",
			InsecureSkipVerify: true, Username: "me", Password: "secret",
		}, "lan.example": {PlainHTTP: true}},
		Auth:             AuthConfig{Config: "/config.json", Helper: "ecr-login"},
		ImagePullTimeout: "90s", PullActivityTimeout: "30s", PullConcurrency: 4,
		GC: GCConfig{Image: false, ImageDelay: "1h", Container: false, ContainerDelay: "5m", DanglingContainers: DanglingConfig{
			Enabled: false, Period: "1m", CreationGrace: "2m",
		}},
		Volumes:         VolumesConfig{Enabled: true, Path: "/v", AllowedPaths: []string{"/srv"}},
		AllowPrivileged: true, AllowCaps: []string{"all"}, AllowHostNamespaces: []string{"pid"}, PidsLimit: 500, ShmSize: 4096,
		ExtraLabels: []string{"*"}, DisableLogCollection: true,
	}
	must.NoError(t, want.validate())
	same(t, want, decode(`
		containerd {
			address     = "/a.sock"
			namespace   = "n"
			snapshotter = "native"
			runtime     = "runsc"
		}
		allow_runtimes         = ["kata"]
		environments           = "/env"
		environment_repository = "registry.example/pf"
		default_environment    = "base"
		registry "registry.example:5000" {
			mirrors              = ["mirror.example"]
			ca_file              = "/ca"
			cert_file            = "/cert"
			key_file             = "/key"
			insecure_skip_verify = true
			username             = "me"
			password             = "secret"
		}
		registry "lan.example" {
			plain_http = true
		}
		auth {
			config = "/config.json"
			helper = "ecr-login"
		}
		image_pull_timeout    = "90s"
		pull_activity_timeout = "30s"
		pull_concurrency      = 4
		gc {
			image           = false
			image_delay     = "1h"
			container       = false
			container_delay = "5m"
			dangling_containers {
				enabled        = false
				period         = "1m"
				creation_grace = "2m"
			}
		}
		volumes {
			enabled       = true
			path          = "/v"
			allowed_paths = ["/srv"]
		}
		allow_privileged       = true
		allow_caps             = ["all"]
		allow_host_namespaces  = ["pid"]
		pids_limit             = 500
		shm_size               = 4096
		extra_labels           = ["*"]
		disable_log_collection = true
	`))
}

func TestSchema_refusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	for text, want := range map[string]string{
		`imaje = "x"`:                      "imaje",
		`max_concurrency = "many"`:         "max_concurrency",
		`mount { targt = "/x" }`:           "targt",
		`labels = "x"`:                     "labels",
		`privileged = "maybe"`:             "privileged",
		`auth { user = "me" }`:             "user",
		`devices = [{ path = "/dev/x" }]`:  "path",
		`entrypoint = { command = "true"}`: "entrypoint",
	} {
		_, err := agent.DecodeConfig(d.TaskConfigSchema(), text, nil)
		must.Error(t, err, must.Sprint(text))
		test.StrContains(t, err.Error(), want)
	}
}
