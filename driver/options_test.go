package driver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestDecodeTaskConfig_namesTheWrongOption(t *testing.T) {
	t.Parallel()
	one := func(name string, value any) map[string]any { return map[string]any{name: value} }
	mount := func(fields map[string]any) map[string]any { return one("mount", []any{fields}) }
	for _, c := range []struct {
		config map[string]any
		want   string // of the error; empty for none
	}{
		{map[string]any{}, ""},
		{one("environment", "team:3"), ""},
		{one("image", "busybox"), ""},
		{one("load", "local/x.tar"), ""},
		{map[string]any{"environment": "a", "image": "b"}, "environment and image"},
		{map[string]any{"environment": "a", "load": "b"}, "environment and load"},
		{one("image_pull_policy", "sometimes"), `image_pull_policy "sometimes"`},
		{one("image_pull_timeout", "soon"), `image_pull_timeout "soon"`},
		{one("platform", "linux/amd64/v8"), ""},
		{one("platform", "a/b/c/d"), "platform"},
		{one("auth", one("password", "secret")), "auth: password without username"},
		{one("max_concurrency", 0), "max_concurrency 0"},
		{one("workers", -1), "workers -1"},
		{one("work_dir", "here"), `work_dir "here"`},
		{one("group_add", []string{""}), "group_add"},
		{one("labels", map[string]string{"containerd.io/gc.root": "x"}), "labels"},
		{one("labels", map[string]string{"": "x"}), "labels"},
		{one("labels", map[string]string{"x": strings.Repeat("y", 4096)}), "longer than 4096"},
		{one("hostname", "a b"), `hostname "a b"`},
		{one("extra_hosts", []string{"db:10.0.0.7", "six:::1", "seven:[::1]"}), ""},
		{one("extra_hosts", []string{"db"}), `extra_hosts "db"`},
		{one("extra_hosts", []string{"db:host"}), `extra_hosts "db:host"`},
		{one("extra_hosts", []string{"a\nb:1.1.1.1"}), "extra_hosts"},
		{one("dns_servers", []string{"dns.example"}), `dns_servers "dns.example"`},
		{one("dns_search_domains", []string{"a b"}), `dns_search_domains "a b"`},
		{one("dns_options", []string{""}), "dns_options"},
		{one("network_mode", "bridge"), "group's network block"},
		{map[string]any{"network_mode": "none", "ports": []string{"http"}}, "network_mode none and ports"},
		{mount(map[string]any{"type": "bind", "source": "x", "target": "y"}), `mount[0]: target "y"`},
		{mount(map[string]any{"type": "bind", "source": "x", "target": "/"}), `mount[0]: target "/"`},
		{mount(map[string]any{"type": "bind", "target": "/y"}), "a bind mount needs one"},
		{mount(map[string]any{"type": "tmpfs", "source": "x", "target": "/y"}), "a tmpfs has none"},
		{mount(map[string]any{"type": "volume", "source": "../x", "target": "/y"}), "must be a volume's name"},
		{mount(map[string]any{"type": "nfs", "target": "/y"}), `type "nfs"`},
		{mount(map[string]any{"type": "bind", "source": "x", "target": "/y", "tmpfs_options": one("size", 1)}), "tmpfs_options"},
		{mount(map[string]any{"type": "tmpfs", "target": "/y", "tmpfs_options": one("mode", "rwx")}), `tmpfs_options.mode "rwx"`},
		{mount(map[string]any{"type": "tmpfs", "target": "/y", "tmpfs_options": one("size", -1)}), "tmpfs_options.size"},
		{mount(map[string]any{"type": "bind", "source": "x", "target": "/y", "bind_options": one("propagation", "up")}), `propagation "up"`},
		{one("volumes", []string{"local/x:/x", "/srv:/srv:ro,rslave"}), ""},
		{one("volumes", []string{"/x"}), `volumes "/x"`},
		{one("volumes", []string{"a:b"}), `volumes "a:b": target "b"`},
		{one("volumes", []string{"a:/b:z"}), `option "z"`},
		{one("volumes", []string{"local/a:/x", "local/b:/y/../x"}), "something else is mounted at /x"},
		{one("devices", []any{one("host_path", "fuse")}), `devices[0]: host_path "fuse"`},
		{one("devices", []any{map[string]any{"host_path": "/dev/x", "container_path": "x"}}), "container_path"},
		{one("devices", []any{map[string]any{"host_path": "/dev/x", "cgroup_permissions": "rx"}}), "cgroup_permissions"},
		{one("cap_add", []string{"net_raw", "CAP_SYS_TIME", "all"}), ""},
		{one("cap_add", []string{"fly"}), `cap_add "fly"`},
		{one("cap_drop", []string{"fly"}), `cap_drop "fly"`},
		{one("pid_mode", "task:x"), `pid_mode "task:x"`},
		{one("cgroupns", "shared"), `cgroupns "shared"`},
		{one("ulimit", map[string]string{"nofile": "1024", "core": "-1"}), ""},
		{one("ulimit", map[string]string{"nofile": "many"}), `ulimit nofile "many"`},
		{one("ulimit", map[string]string{"nofile": "2:1"}), "above the hard one"},
		{one("ulimit", map[string]string{"files": "1"}), `ulimit "files"`},
		{one("sysctl", map[string]string{"a b": "1"}), "sysctl"},
		{one("shm_size", -1), "shm_size -1"},
		{one("pids_limit", -1), "pids_limit -1"},
		{one("oom_score_adj", 1001), "oom_score_adj 1001"},
		{one("oom_score_adj", -1), "oom_score_adj -1"},
		{one("cpu_cfs_period", 10), "cpu_cfs_period 10"},
		{one("memory_hard_limit", -1), "memory_hard_limit -1"},
		{one("memory_swap", "-1"), ""},
		{one("memory_swap", "0"), "memory_swap"},
		{one("memory_swap", "much"), `memory_swap "much"`},
		{one("memory_swap", "9999999999g"), "memory_swap"},
		{one("memory_swappiness", 101), "memory_swappiness 101"},
		{map[string]any{"workers": -1, "work_dir": "here"}, "work_dir"}, // all at once
	} {
		encoded, err := plugin.EncodeState(c.config)
		must.NoError(t, err)
		config, err := decodeTaskConfig(encoded)
		if c.want != "" {
			must.ErrorContains(t, err, c.want)
			continue
		}
		must.NoError(t, err, must.Sprint(c.config))
		test.Eq(t, 32, config.MaxConcurrency)
		test.Eq(t, PullIfNotPresent, config.ImagePullPolicy)
		test.True(t, config.NoNewPrivileges)
	}
}

func TestDecodePluginConfig_namesTheWrongOption(t *testing.T) {
	t.Parallel()
	one := func(name string, value any) map[string]any { return map[string]any{name: value} }
	registry := func(fields map[string]any) map[string]any {
		return one("registry", map[string]any{"r.example": fields})
	}
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, ""},
		{one("containerd", one("address", "/x.sock")), ""},
		{one("containerd", one("address", "tcp://x")), "containerd.address"},
		{one("containerd", one("namespace", "")), "containerd.namespace"},
		{one("environments", "here"), "environments"},
		{one("image_pull_timeout", "soon"), "image_pull_timeout"},
		{one("image_pull_timeout", "-1s"), "image_pull_timeout"},
		{one("pull_activity_timeout", "0s"), "pull_activity_timeout"},
		{one("pull_concurrency", 0), "pull_concurrency 0"},
		{one("gc", one("image_delay", "later")), "gc.image_delay"},
		{one("gc", one("image_delay", "0s")), ""},
		{one("gc", one("dangling_containers", one("period", "0s"))), "gc.dangling_containers.period"},
		{one("volumes", one("path", "here")), "volumes.path"},
		{one("volumes", one("allowed_paths", []string{"srv"})), "volumes.allowed_paths"},
		{one("allow_caps", []string{"all"}), ""},
		{one("allow_caps", []string{"fly"}), `allow_caps "fly"`},
		{one("allow_host_namespaces", []string{"user"}), `allow_host_namespaces "user"`},
		{one("allow_runtimes", []string{""}), "allow_runtimes"},
		{one("pids_limit", -1), "pids_limit"},
		{one("shm_size", 0), "shm_size"},
		{one("extra_labels", []string{"["}), "extra_labels"},
		{registry(one("ca_file", "ca.pem")), `registry "r.example": ca_file`},
		{registry(one("cert_file", "/c.pem")), "cert_file and key_file"},
		{registry(one("password", "secret")), "password without username"},
		{one("registry", map[string]any{"https://r.example/": map[string]any{}}), "must be a host"},
		{one("auth", one("config", "config.json")), "auth.config"},
		{one("auth", one("helper", "/usr/bin/x")), "auth.helper"},
	} {
		encoded, err := plugin.EncodeState(c.config)
		must.NoError(t, err)
		config, err := decodePluginConfig(encoded)
		if c.want != "" {
			must.ErrorContains(t, err, c.want)
			test.StrNotContains(t, err.Error(), "secret")
			continue
		}
		must.NoError(t, err, must.Sprint(c.config))
		test.Eq(t, "nomad", config.Containerd.Namespace)
		test.Eq(t, 5*time.Minute, config.pullTimeout)
		test.True(t, config.GC.Container)
	}
}

func TestPermit_saysWhatTheOperatorDoesNotAllow(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		operate func(*PluginConfig)
		task    TaskConfig
		want    string
	}{
		{"nothing asked", nil, TaskConfig{}, ""},
		{"Privileged", nil, TaskConfig{Privileged: true}, "allow_privileged"},
		{"Privileged", func(c *PluginConfig) { c.AllowPrivileged = true }, TaskConfig{Privileged: true}, ""},
		{"Capabilities", nil, TaskConfig{CapAdd: []string{"net_raw", "chown", "sys_admin"}}, "cap_add net_raw, sys_admin"},
		{"Capabilities", func(c *PluginConfig) { c.AllowCaps = []string{"all"} }, TaskConfig{CapAdd: []string{"sys_admin"}}, ""},
		{"AllowedModes", nil, TaskConfig{PIDMode: "host"}, `pid_mode host: the plugin's allow_host_namespaces on this node has no "pid"`},
		{"AllowedModes", nil, TaskConfig{CgroupNS: "host"}, "cgroupns host"},
		{"AllowedModes", func(c *PluginConfig) { c.AllowHostNamespaces = []string{"pid"} }, TaskConfig{PIDMode: "host"}, ""},
		{"AllowedModes", nil, TaskConfig{IPCMode: "private"}, ""},
		{"ChecksAllowRuntimes", nil, TaskConfig{Runtime: "runsc"}, ""},
		{"ChecksAllowRuntimes", nil, TaskConfig{Runtime: "io.containerd.kata.v2"}, ""},
		{"ChecksAllowRuntimes", nil, TaskConfig{Runtime: "nvidia"}, `runtime "nvidia"`},
		{"ChecksAllowRuntimes", func(c *PluginConfig) { c.AllowRuntimes = nil }, TaskConfig{Runtime: "runc"}, ""},
		{"PidsLimit", func(c *PluginConfig) { c.PidsLimit = 10 }, TaskConfig{PidsLimit: 11}, "pids_limit 11"},
		{"PidsLimit", func(c *PluginConfig) { c.PidsLimit = 10 }, TaskConfig{PidsLimit: 10}, ""},
		{"VolumesDisabled", nil, TaskConfig{Mounts: []MountConfig{{Type: mountVolume, Source: "data"}}}, "volumes.enabled"},
		{"VolumesEnabled", func(c *PluginConfig) { c.Volumes.Enabled = true }, TaskConfig{Mounts: []MountConfig{{Type: mountVolume, Source: "data"}}}, ""},
	} {
		config := defaultPluginConfig()
		if c.operate != nil {
			c.operate(&config)
		}
		err := config.permit(&c.task)
		if c.want == "" {
			test.NoError(t, err, test.Sprint(c.name))
			continue
		}
		test.ErrorContains(t, err, c.want, test.Sprint(c.name))
	}
}

func TestWithDefaults(t *testing.T) {
	t.Parallel()
	config := defaultPluginConfig()
	config.DefaultEnvironment, config.PidsLimit = "base", 10
	filled := TaskConfig{}.withDefaults(config)
	test.Eq(t, "base", filled.Environment)
	test.Eq(t, int64(10), filled.PidsLimit)
	test.Eq(t, int64(64<<20), filled.ShmSize)
	test.Eq(t, "io.containerd.runc.v2", filled.Runtime)
	filled = TaskConfig{Image: "x", Runtime: "runsc", ShmSize: 1, PidsLimit: 2}.withDefaults(config)
	test.Eq(t, TaskConfig{Image: "x", Runtime: "io.containerd.runsc.v1", ShmSize: 1, PidsLimit: 2}, filled)
	test.Eq(t, "", TaskConfig{Load: "local/x.tar"}.withDefaults(config).Environment)
}

// bind makes a bind mount of source in a task whose allocation is at alloc.
func bind(t *testing.T, alloc string, volumes VolumesConfig, mount MountConfig, create bool) (seen string, err error) {
	t.Helper()
	held := &heldFiles{}
	defer func() { must.NoError(t, held.Close()) }()
	mount.Type, mount.Target = mountBind, "/x"
	made, err := taskMount(held, volumes, &plugin.TaskConfig{AllocDir: alloc, Name: "web"}, mount, create)
	if err != nil {
		return "", err
	}
	return made.Source, nil
}

// BindMountsHonorVolumesEnabledFlag: what may be mounted does not depend on the words of a path, but on where it leads.
func TestTaskMount_BindMountsHonorVolumesEnabledFlag(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	alloc, outside := filepath.Join(base, "alloc-1"), filepath.Join(base, "outside")
	for _, dir := range []string{"alloc/logs", "alloc/data", "web/local/data", "web/secrets"} {
		must.NoError(t, os.MkdirAll(filepath.Join(alloc, dir), 0o755))
	}
	must.NoError(t, os.MkdirAll(filepath.Join(outside, "allowed"), 0o755))
	must.NoError(t, os.MkdirAll(filepath.Join(base, "alloc-10"), 0o755))
	must.NoError(t, os.Symlink(outside, filepath.Join(alloc, "web/local/out")))
	must.NoError(t, os.Symlink("data", filepath.Join(alloc, "web/local/in")))
	must.NoError(t, os.Symlink("../../../outside", filepath.Join(alloc, "web/local/dots")))
	must.NoError(t, os.Symlink(outside, filepath.Join(outside, "allowed/loop")))
	off, on := VolumesConfig{}, VolumesConfig{Enabled: true}
	some := VolumesConfig{Enabled: true, AllowedPaths: []string{filepath.Join(outside, "allowed")}}
	for _, c := range []struct {
		volumes VolumesConfig
		source  string
		seen    string // relative to base
		refused string
	}{
		{off, "local/data", "alloc-1/web/local/data", ""},
		{off, filepath.Join(alloc, "web/local/data"), "alloc-1/web/local/data", ""},
		{off, "../alloc/data", "alloc-1/alloc/data", ""},
		{off, "local/in", "alloc-1/web/local/data", ""},
		{off, "local/none", "", "no such file"},
		{off, "local/out", "", "through a link"},
		{off, "local/dots", "", "through a link"},
		{off, "local/out/allowed", "", "through a link"},
		{off, "../../outside", "", "volumes.enabled"},
		{off, "/etc", "", "volumes.enabled"},
		{off, filepath.Join(base, "alloc-10"), "", "volumes.enabled"},
		{off, "../alloc/logs", "", "must be readonly"},
		{off, "../alloc", "", "must be readonly"},
		{off, "..", "", "must be readonly"},
		{off, "local/../../alloc/logs", "", "must be readonly"},
		{on, outside, "outside", ""},
		{on, "local/out", "", "through a link"},
		{some, filepath.Join(outside, "allowed"), "outside/allowed", ""},
		{some, outside, "", "allowed_paths"},
		{some, filepath.Join(outside, "allowed/loop"), "", "allowed_paths"},
		{some, filepath.Join(outside, "allowed/.."), "", "allowed_paths"},
		{some, filepath.Join(outside, "none"), "", "no such file"},
	} {
		seen, err := bind(t, alloc, c.volumes, MountConfig{Source: c.source}, false)
		if c.refused != "" {
			test.ErrorContains(t, err, c.refused, test.Sprint(c.source))
			continue
		}
		test.NoError(t, err, test.Sprint(c.source))
		test.Eq(t, filepath.Join(base, c.seen), seen, test.Sprint(c.source))
	}
	seen, err := bind(t, alloc, off, MountConfig{Source: "../alloc/logs", Readonly: true}, false)
	must.NoError(t, err)
	test.Eq(t, filepath.Join(alloc, "alloc/logs"), seen)

	seen, err = bind(t, alloc, off, MountConfig{Source: "local/new/deep"}, true)
	must.NoError(t, err)
	test.Eq(t, filepath.Join(alloc, "web/local/new/deep"), seen)
	_, err = bind(t, alloc, off, MountConfig{Source: "local/out/new"}, true)
	test.Error(t, err)
	_, err = os.Stat(filepath.Join(outside, "new"))
	test.ErrorIs(t, err, os.ErrNotExist, test.Sprint("nothing is made through a link"))
}

// The file system of this very process stands for that of a container.
func TestHeldFiles_noticeWhatWasChanged(t *testing.T) {
	t.Parallel()
	alloc := t.TempDir()
	data := filepath.Join(alloc, "web/local/data")
	must.NoError(t, os.MkdirAll(data, 0o755))
	held := &heldFiles{}
	defer held.Close()
	made, err := taskMount(held, VolumesConfig{}, &plugin.TaskConfig{AllocDir: alloc, Name: "web"},
		MountConfig{Type: mountBind, Source: "local/data", Target: data}, false)
	must.NoError(t, err)
	test.Eq(t, data, made.Source)
	test.NoError(t, held.verify(os.Getpid()))
	must.NoError(t, os.Rename(data, data+".old"))
	test.ErrorContains(t, held.verify(os.Getpid()), "no such file")
	must.NoError(t, os.Symlink("/etc", data))
	test.ErrorContains(t, held.verify(os.Getpid()), "was changed while it was being mounted")
}

func TestNamedVolume_isMadeOnce(t *testing.T) {
	t.Parallel()
	volumes := VolumesConfig{Enabled: true, Path: filepath.Join(t.TempDir(), "volumes")}
	dir, err := namedVolume(volumes, "data")
	must.NoError(t, err)
	must.NoError(t, os.WriteFile(filepath.Join(dir, "kept"), nil, 0o600))
	again, err := namedVolume(volumes, "data")
	must.NoError(t, err)
	test.Eq(t, dir, again)
	test.FileExists(t, filepath.Join(again, "kept"))
}

func TestResources_ofOptions(t *testing.T) {
	t.Parallel()
	d, _ := newTestDriver(t)
	config := &plugin.TaskConfig{Resources: plugin.Resources{
		CPUShares: 500, MemoryMB: 64, Linux: &plugin.LinuxResources{PercentTicks: 0.25},
	}}
	limits, err := d.resources(config, TaskConfig{CPUHardLimit: true, MemoryHardLimit: 128, MemorySwap: "256m"}, cgroupPlace{})
	must.NoError(t, err)
	test.Eq(t, spec.Resources{
		CPUMHz: 500, MemoryMB: 64, MemoryMaxMB: 128, Swap: 256 << 20,
		CPUQuota: 25000 * cores(), CPUPeriod: 100000,
	}, limits)
	limits, err = d.resources(config, TaskConfig{CPUHardLimit: true, CPUCFSPeriod: 20000}, cgroupPlace{Cpus: "0"})
	must.NoError(t, err)
	test.Eq(t, 5000*cores(), limits.CPUQuota)
	test.Eq(t, "0", limits.Cpus)
	config.Resources.MemoryMaxMB = 96
	limits, err = d.resources(config, TaskConfig{MemoryHardLimit: 128}, cgroupPlace{})
	must.NoError(t, err)
	test.Eq(t, int64(96), limits.MemoryMaxMB, test.Sprint("the job's own limit is the scheduler's too"))

	config.Resources = plugin.Resources{CPUShares: 500, MemoryMB: 64}
	_, err = d.resources(config, TaskConfig{CPUHardLimit: true}, cgroupPlace{})
	test.ErrorContains(t, err, "cpu_hard_limit")
	_, err = d.resources(config, TaskConfig{MemoryHardLimit: 32}, cgroupPlace{})
	test.ErrorContains(t, err, "memory_hard_limit 32")
}

func TestContainerLabels_ExtraLabels(t *testing.T) {
	t.Parallel()
	config := &plugin.TaskConfig{
		ID: "a/web/1", Name: "web", JobID: "job", JobName: "job", GroupName: "group", AllocID: "a", Namespace: "default", NodeName: "n", NodeID: "id",
	}
	always := map[string]string{"com.hashicorp.nomad.alloc_id": "a", "com.hashicorp.nomad.task_id": "a/web/1", "nomad-promptflow/state": "AQ=="}
	test.Eq(t, always, containerLabels(config, nil, nil, []byte{1}))
	named := containerLabels(config, map[string]string{"team": "nlp", "com.hashicorp.nomad.alloc_id": "forged"}, []string{"node_*", "job_id"}, []byte{1})
	want := map[string]string{
		"team": "nlp", "com.hashicorp.nomad.node_name": "n", "com.hashicorp.nomad.node_id": "id", "com.hashicorp.nomad.job_id": "job",
	}
	for name, value := range always {
		want[name] = value
	}
	test.Eq(t, want, named)
}

func TestTaskDNS_taskOverGroup(t *testing.T) {
	t.Parallel()
	group := &plugin.DNS{Servers: []string{"10.0.0.1"}, Searches: []string{"group.test"}}
	test.Eq(t, group, taskDNS(group, TaskConfig{}))
	test.Nil(t, taskDNS(nil, TaskConfig{}))
	test.Eq(t, &plugin.DNS{Servers: []string{"10.0.0.2"}, Searches: []string{"group.test"}, Options: []string{"rotate"}},
		taskDNS(group, TaskConfig{DNSServers: []string{"10.0.0.2"}, DNSOptions: []string{"rotate"}}))
}
