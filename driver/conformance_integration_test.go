package driver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// conformance is one case of what is expected of a container driver on Nomad. Its name begins with the name that Nomad's own
// drivers give to their test of it.
type conformance struct {
	name    string
	plugin  string                       // more of the plugin's configuration
	task    string                       // the body of the task's config { }
	change  func(*agentTask)             // what else the agent says of the task, or finds in its folders
	prints  []string                     // lines the task prints
	lacks   []string                     // what it does not print
	exit    *plugin.ExitResult           // nil: succeeds
	refused string                       // part of the error with which the start fails for good
	check   func(*testing.T, *agentTask) // while the task runs
}

// cgroupFile reads a file of the task's own cgroup by its name with version 1 and 2.
func cgroupFile(v1, v2 string) string {
	return fmt.Sprintf("cat /sys/fs/cgroup/%s 2>/dev/null || cat /sys/fs/cgroup/%s", v1, v2)
}

func runConformance(t *testing.T, cases []conformance) {
	t.Helper()
	m := newMachine(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n := m.launch(t, c.plugin)
			task := n.task(c.task)
			if c.change != nil {
				c.change(task)
			}
			err := task.start()
			if c.refused != "" {
				must.ErrorContains(t, err, c.refused)
				test.False(t, plugin.IsRecoverable(err), test.Sprint("trying again does not help"))
				requireNoContainer(t, m)
				return
			}
			must.NoError(t, err)
			if c.check != nil {
				c.check(t, task)
			}
			result := task.wait()
			want := plugin.ExitResult{}
			if c.exit != nil {
				want = *c.exit
			}
			task.destroy()
			output := task.output()
			test.Eq(t, want, *result, test.Sprint(output))
			for _, line := range c.prints {
				test.StrContains(t, "\n"+output, "\n"+line+"\n")
			}
			for _, text := range c.lacks {
				test.StrNotContains(t, output, text)
			}
		})
	}
	must.SliceEmpty(t, m.daemon.Mounts())
}

// requireNoContainer checks that a start that failed left nothing.
func requireNoContainer(t *testing.T, m *machine) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), "nomad")
	list, err := m.daemon.Client("nomad").Containers(ctx)
	must.NoError(t, err)
	must.SliceEmpty(t, list)
	must.SliceEmpty(t, m.daemon.Shims())
}

func TestConformance_Resources(t *testing.T) {
	const mb = 1 << 20
	memory := cgroupFile("memory/memory.limit_in_bytes", "memory.max")
	pids := cgroupFile("pids/pids.max", "pids.max")
	quota := `if [ -e /sys/fs/cgroup/cpu.max ]; then cat /sys/fs/cgroup/cpu.max; else
		echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) $(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi`
	withCompute := func(task *agentTask) { task.Resources.Linux.PercentTicks = 0.25 }
	runConformance(t, []conformance{
		{name: "MemoryHardLimit", task: shell(memory, "memory_hard_limit = 128"), prints: []string{fmt.Sprint(128 * mb)}},
		{name: "MemoryHardLimit/below the reservation", task: shell(memory, "memory_hard_limit = 32"), refused: "memory_hard_limit 32"},
		{name: "memoryLimits/reservation only", task: shell(memory), prints: []string{fmt.Sprint(64 * mb)}},
		{name: "memoryLimits/memory_max", task: shell(memory), change: func(task *agentTask) { task.Resources.MemoryMaxMB = 96 },
			prints: []string{fmt.Sprint(96 * mb)}},
		{name: "memoryLimits/unlimited", task: shell(`limit=$(` + memory + `); [ "$limit" = max ] || [ "$limit" -gt 1000000000000 ] && echo none`),
			change: func(task *agentTask) { task.Resources.MemoryMaxMB = -1 }, prints: []string{"none"}},
		{name: "OOMKilled", task: "entrypoint = [\"/bin/tail\"]\nargs = [\"-c\", \"100m\", \"/dev/zero\"]",
			change: func(task *agentTask) { task.Resources.MemoryMB = 16 },
			exit:   &plugin.ExitResult{ExitCode: 137, Signal: 9, OOMKilled: true}},
		{name: "PidsLimit", task: shell(pids+`; (for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done) 2>&1 | grep -c . >/dev/null && echo refused; wait`, "pids_limit = 10"),
			prints: []string{"10", "refused"}},
		{name: "PidsLimit/of the plugin", plugin: "pids_limit = 12", task: shell(pids), prints: []string{"12"}},
		{name: "PidsLimit/above the plugin's", plugin: "pids_limit = 12", task: shell(pids, "pids_limit = 13"), refused: "pids_limit 13"},
		{name: "CPUHardLimit", task: shell(quota, "cpu_hard_limit = true"), change: withCompute,
			prints: []string{fmt.Sprintf("%d 100000", 25000*runtime.NumCPU())}},
		{name: "CPUCFSPeriod", task: shell(quota, "cpu_hard_limit = true", "cpu_cfs_period = 20000"), change: withCompute,
			prints: []string{fmt.Sprintf("%d 20000", 5000*runtime.NumCPU())}},
		{name: "NormalizeCPUShares", task: shell(cgroupFile("cpu/cpu.shares", "cpu.weight")), change: func(task *agentTask) { task.Resources.CPUShares = 1024 },
			prints: []string{sharesOrWeight("1024", "39")}},
		{name: "CPUSetCPUs", task: shell("grep Cpus_allowed_list /proc/self/status"),
			change: func(task *agentTask) { task.Resources.Linux.CpusetCPUs = "0" }, prints: []string{"Cpus_allowed_list:\t0"}},
		{name: "Ulimit", task: shell("ulimit -Sn; ulimit -Hn; ulimit -c", "ulimit {\n nofile = \"100:200\"\n core = \"0\"\n}"), prints: []string{"100", "200", "0"}},
		{name: "Ulimit_Errors", task: shell("true", `ulimit = { nofile = "200:100" }`), refused: "above the hard one"},
		{name: "Ulimit_Errors/unknown", task: shell("true", `ulimit = { files = "1" }`), refused: `ulimit "files"`},
		{name: "Sysctl", task: shell("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni", `network_mode = "none"`,
			"sysctl = {\n\"net.core.somaxconn\" = \"16384\"\n\"kernel.shmmni\" = \"123\"\n}"), prints: []string{"16384", "123"}},
		{name: "Sysctl_Errors/of the node", task: shell("true", `sysctl = { "kernel.panic" = "1" }`), refused: "parameter of the whole node"},
		{name: "Sysctl_Errors/in the node's network", task: shell("true", `sysctl = { "net.core.somaxconn" = "1" }`), refused: "node's network"},
		{name: "Sysctl_Errors/unknown", task: shell("true", `network_mode = "none"`, `sysctl = { "net.core.nothing" = "1" }`), refused: "net/core/nothing"},
		{name: "oom_score_adj", task: shell("cat /proc/self/oom_score_adj", "oom_score_adj = 300"), prints: []string{"300"}},
		{name: "shm_size", task: shell("df -k /dev/shm | tail -1 | awk '{print $2}'", "shm_size = 8388608"), prints: []string{"8192"}},
		{name: "shm_size/of the plugin", plugin: "shm_size = 4194304", task: shell("df -k /dev/shm | tail -1 | awk '{print $2}'"), prints: []string{"4096"}},
	})
}

// sharesOrWeight is what is expected of a cgroup of version 1 or 2.
func sharesOrWeight(v1, v2 string) string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return v2
	}
	return v1
}

func TestConformance_Swap(t *testing.T) {
	task := shell(cgroupFile("memory/memory.memsw.limit_in_bytes", "memory.swap.max"), `memory_swap = "128m"`)
	c := conformance{name: "Swap", task: task, prints: []string{sharesOrWeight(fmt.Sprint(128<<20), fmt.Sprint(64<<20))}}
	_, v1 := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	_, v2 := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	if v1 != nil && v2 != nil {
		// A kernel that does not count swap: the option must be refused, not ignored.
		c = conformance{name: "Swap/not counted by this kernel", task: task, refused: "cannot limit swap"}
	}
	runConformance(t, []conformance{c})
}

func TestConformance_Network(t *testing.T) {
	hostNet, err := os.Readlink("/proc/self/ns/net")
	must.NoError(t, err)
	path := newNetworkNamespace(t)
	info, err := os.Stat(path)
	must.NoError(t, err)
	groupNet := fmt.Sprintf("net:[%d]", info.Sys().(*syscall.Stat_t).Ino)
	inGroup := func(task *agentTask) {
		task.Network = &plugin.NetworkIsolation{Mode: plugin.NetworkGroup, Path: path}
		task.Resources.Ports = []plugin.Port{{Label: "http", Host: 20123, To: 8080, HostIP: "127.0.0.1"}}
	}
	const namespace = "readlink /proc/self/ns/net"
	runConformance(t, []conformance{
		{name: "NetworkMode_Host/of the group", task: shell(namespace), prints: []string{hostNet}},
		{name: "NetworkMode_Host/of the task", task: shell(namespace, `network_mode = "host"`), change: inGroup, prints: []string{hostNet}},
		{name: "NetworkModes/group", task: shell(namespace), change: inGroup, prints: []string{groupNet}},
		{name: "NetworkModes/none", task: shell(namespace+"; ls /sys/class/net", `network_mode = "none"`), change: inGroup,
			prints: []string{"lo"}, lacks: []string{hostNet, groupNet, "eth", "nomad"}},
		{name: "NetworkModes/unknown", task: shell("true", `network_mode = "bridge"`), refused: "group's network block"},
		{name: "PortsNoMap", task: shell("echo $PROMPTFLOW_LISTEN", `ports = ["http"]`),
			change: func(task *agentTask) {
				task.Resources.Ports = []plugin.Port{{Label: "http", Host: 20123, HostIP: "127.0.0.1"}}
			}, prints: []string{"127.0.0.1:20123"}},
		{name: "PortsMapping", task: shell("echo $PROMPTFLOW_LISTEN", `ports = ["http"]`), change: inGroup, prints: []string{"0.0.0.0:8080"}},
		{name: "Ports_MissingFromGroup", task: shell("true", `ports = ["grpc"]`), change: inGroup, refused: `no port is labelled "grpc"`},
		{name: "DNS/of the group", task: shell("cat /etc/resolv.conf"), change: func(task *agentTask) {
			task.DNS = &plugin.DNS{Servers: []string{"192.0.2.53"}, Searches: []string{"a.test"}, Options: []string{"ndots:2"}}
		}, prints: []string{"nameserver 192.0.2.53", "search a.test", "options ndots:2"}},
		{name: "DNS/of the task", task: shell("cat /etc/resolv.conf", `dns_servers = ["192.0.2.54"]`, `dns_search_domains = ["b.test"]`, `dns_options = ["rotate"]`),
			change: func(task *agentTask) { task.DNS = &plugin.DNS{Servers: []string{"192.0.2.53"}} },
			prints: []string{"nameserver 192.0.2.54", "search b.test", "options rotate"}, lacks: []string{"192.0.2.53"}},
		{name: "ExtraHosts", task: shell("cat /etc/hosts", `extra_hosts = ["db:10.0.0.7", "six:2001:db8::1"]`), change: inGroup,
			prints: []string{"10.0.0.7\tdb", "2001:db8::1\tsix"}},
		{name: "Hostname", task: shell("hostname; cat /etc/hostname", `hostname = "mine"`), prints: []string{"mine"}},
		{name: "Hostname/of the group", task: shell("hostname"), change: func(task *agentTask) {
			inGroup(task)
			task.Network.Hosts = &plugin.HostsConfig{Hostname: "inner", Address: "172.26.64.9"}
		}, prints: []string{"inner"}},
	})
}

func TestConformance_Files(t *testing.T) {
	volumes := filepath.Join(t.TempDir(), "volumes")
	outside := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(outside, "file"), []byte("outside\n"), 0o644))
	device := filepath.Join(outside, "kmsg")
	must.NoError(t, syscall.Mknod(device, syscall.S_IFCHR|0o666, 1<<8|11))
	enabled := fmt.Sprintf("volumes {\n enabled = true\n path = %q\n}", volumes)
	allowed := fmt.Sprintf("volumes {\n enabled = true\n path = %q\n allowed_paths = [%q]\n}", volumes, outside)
	inLocal := func(make func(dir string) error) func(*agentTask) {
		return func(task *agentTask) { must.NoError(task.node.t, make(filepath.Join(task.alloc.TaskDir(), "local"))) }
	}
	runConformance(t, []conformance{
		{name: "Mounts/bind", task: shell("cat /x/file; touch /x/file 2>/dev/null || echo readonly",
			"mount {\n type = \"bind\"\n source = \"local/data\"\n target = \"/x\"\n readonly = true\n}"),
			change: inLocal(func(dir string) error {
				if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
					return err
				}
				return os.WriteFile(filepath.Join(dir, "data/file"), []byte("inside\n"), 0o644)
			}), prints: []string{"inside", "readonly"}},
		{name: "Mounts/one file", task: shell("cat /etc/app.conf", "mount {\n type = \"bind\"\n source = \"local/app.conf\"\n target = \"/etc/app.conf\"\n}"),
			change: inLocal(func(dir string) error {
				return os.WriteFile(filepath.Join(dir, "app.conf"), []byte("configured\n"), 0o644)
			}),
			prints: []string{"configured"}},
		{name: "Mounts/volume", plugin: enabled, task: shell("echo kept >> /data/file; cat /data/file", "mount {\n type = \"volume\"\n source = \"team-data\"\n target = \"/data\"\n}"),
			prints: []string{"kept"}},
		{name: "Mounts/volume again", plugin: enabled, task: shell("wc -l < /data/file; echo kept >> /data/file", "mount {\n type = \"volume\"\n source = \"team-data\"\n target = \"/data\"\n}"),
			prints: []string{"1"}},
		{name: "VolumesDisabled/volume", task: shell("true", "mount {\n source = \"team-data\"\n target = \"/data\"\n}"), refused: "volumes.enabled"},
		{name: "VolumesDisabled/bind", task: shell("true", fmt.Sprintf("volumes = [%q]", outside+":/x")), refused: "volumes.enabled"},
		{name: "VolumesDisabled/in the allocation", task: shell("echo made > /x/file; ls /local/new", `volumes = ["local/new:/x"]`), prints: []string{"file"}},
		{name: "VolumesEnabled", plugin: enabled, task: shell("cat /x/file; touch /x/file 2>/dev/null || echo readonly", fmt.Sprintf("volumes = [%q]", outside+":/x:ro")),
			prints: []string{"outside", "readonly"}},
		{name: "VolumesEnabled/allowed", plugin: allowed, task: shell("cat /x/file", fmt.Sprintf("volumes = [%q]", outside+":/x")), prints: []string{"outside"}},
		{name: "VolumesEnabled/not allowed", plugin: allowed, task: shell("true", `volumes = ["/etc:/x"]`), refused: "allowed_paths"},
		{name: "VolumeError/relative target", task: shell("true", `volumes = ["local:x"]`), refused: `target "x"`},
		{name: "VolumeError/no source", plugin: enabled, task: shell("true", `volumes = ["/no/such/folder:/x"]`), refused: "/no/such/folder"},
		{name: "BindMountsHonorVolumesEnabledFlag/dots", task: shell("true", `volumes = ["local/../../../..:/x"]`), refused: "volumes.enabled"},
		{name: "BindMountsHonorVolumesEnabledFlag/link", task: shell("true", `volumes = ["local/link:/x"]`),
			change: inLocal(func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "link")) }), refused: "through a link"},
		{name: "BindMountsHonorVolumesEnabledFlag/log pipes", task: shell("true", `volumes = ["../alloc:/x"]`), refused: "must be readonly"},
		{name: "Tmpfs", task: shell("df -k /scratch | tail -1 | awk '{print $1, $2}'; stat -c %a /scratch",
			"mount {\n type = \"tmpfs\"\n target = \"/scratch\"\n tmpfs_options {\n size = 1048576\n mode = 700\n}\n}"),
			prints: []string{"tmpfs 1024", "700"}},
		{name: "ReadonlyRootfs", task: shell("touch /x 2>/dev/null || echo readonly; touch /local/x && echo local", "readonly_rootfs = true"), prints: []string{"readonly", "local"}},
		// The kernel's log: may be opened for writing by anyone, and is not among the devices that every container has.
		{name: "Device_Success", task: shell("(: > /dev/mine) && echo write; (: < /dev/mine) 2>/dev/null || echo 'no read'",
			fmt.Sprintf("devices = [{ host_path = %q, container_path = \"/dev/mine\", cgroup_permissions = \"w\" }]", device)), prints: []string{"write", "no read"}},
		{name: "Device_Success/not without", task: shell("ls /dev/kmsg 2>/dev/null || echo none; mknod /tmp/k c 1 11 && (: > /tmp/k) 2>/dev/null || echo refused"),
			prints: []string{"none", "refused"}},
		{name: "Device_IsInvalidConfig/no device", task: shell("true", `devices = [{ host_path = "/etc/hosts" }]`), refused: "not a device"},
		{name: "Device_IsInvalidConfig/not there", task: shell("true", `devices = [{ host_path = "/dev/nothing" }]`), refused: "/dev/nothing"},
		{name: "DevicesAndMounts", task: shell("cat /x/file; head -c 1 /dev/one | od -An -tx1; head -c 1 /dev/two | od -An -tx1",
			`devices = [{ host_path = "/dev/zero", container_path = "/dev/two" }]`),
			change: func(task *agentTask) {
				task.Mounts = []plugin.Mount{{HostPath: outside, TaskPath: "/x", ReadOnly: true}}
				task.Devices = []plugin.Device{{HostPath: "/dev/zero", TaskPath: "/dev/one", CgroupPermissions: "r"}}
			}, prints: []string{"outside", " 00"}},
	})
}

func TestConformance_Security(t *testing.T) {
	own, err := os.ReadFile("/proc/self/status")
	must.NoError(t, err)
	_, rest, _ := strings.Cut(string(own), "CapEff:\t")
	allCaps, _, _ := strings.Cut(rest, "\n")
	hostPID, err := os.Readlink("/proc/self/ns/pid")
	must.NoError(t, err)
	hostIPC, err := os.Readlink("/proc/self/ns/ipc")
	must.NoError(t, err)
	const bounding = "grep CapBnd /proc/self/status"
	const seccomp = "grep Seccomp: /proc/self/status"
	profile := func(task *agentTask) {
		must.NoError(task.node.t, os.WriteFile(filepath.Join(task.alloc.TaskDir(), "local/seccomp.json"), []byte(`{
			"defaultAction": "SCMP_ACT_ALLOW",
			"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}, {"architecture": "SCMP_ARCH_AARCH64"}],
			"syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`), 0o644))
	}
	runConformance(t, []conformance{
		{name: "DefaultCaps", task: shell(bounding), prints: []string{"CapBnd:\t00000000a80405fb"}},
		{name: "Capabilities/drop all", task: shell(bounding, `cap_drop = ["all"]`), prints: []string{"CapBnd:\t0000000000000000"}},
		{name: "Capabilities/drop all, add one", task: shell(bounding, `cap_drop = ["all"]`, `cap_add = ["CAP_CHOWN"]`), prints: []string{"CapBnd:\t0000000000000001"}},
		{name: "Capabilities/add what is not allowed", task: shell("true", `cap_add = ["net_raw"]`), refused: "cap_add net_raw"},
		{name: "Capabilities/add what is allowed", plugin: `allow_caps = ["chown", "net_raw"]`, task: shell(bounding, `cap_add = ["net_raw"]`),
			prints: []string{"CapBnd:\t0000000000002001"}},
		{name: "Privileged", plugin: "allow_privileged = true", task: shell("grep CapEff /proc/self/status; "+seccomp+"; [ -w /proc/sys/kernel/panic ] && echo writable; ls /dev | wc -l", "privileged = true"),
			prints: []string{"CapEff:\t" + allCaps, "Seccomp:\t0", "writable"}},
		{name: "Privileged/not allowed", task: shell("true", "privileged = true"), refused: "allow_privileged"},
		{name: "SecurityOptUnconfined", task: shell(seccomp, `seccomp_profile = "unconfined"`), prints: []string{"Seccomp:\t0"}},
		{name: "SecurityOptFromFile", task: shell("mkdir /tmp/x 2>/dev/null || echo 'no folders'; touch /tmp/y && echo files", `seccomp_profile = "local/seccomp.json"`),
			change: profile, prints: []string{"no folders", "files"}},
		{name: "SecurityOptFromFile/not there", task: shell("true", `seccomp_profile = "local/none.json"`), refused: "local/none.json"},
		{name: "SecurityOptFromFile/no profile", task: shell("true", `seccomp_profile = "local/bad.json"`), change: func(task *agentTask) {
			must.NoError(task.node.t, os.WriteFile(filepath.Join(task.alloc.TaskDir(), "local/bad.json"), []byte("{}"), 0o644))
		}, refused: "no defaultAction"},
		{name: "SecurityOptFromFile/through a link", task: shell("true", `seccomp_profile = "local/link"`), change: func(task *agentTask) {
			must.NoError(task.node.t, os.Symlink("/etc/passwd", filepath.Join(task.alloc.TaskDir(), "local/link")))
		}, refused: "local/link"},
		{name: "no_new_privileges", task: shell("grep NoNewPrivs /proc/self/status"), prints: []string{"NoNewPrivs:\t1"}},
		{name: "no_new_privileges/off", task: shell("grep NoNewPrivs /proc/self/status", "no_new_privileges = false"), prints: []string{"NoNewPrivs:\t0"}},
		{name: "AllowedModes/pid", task: shell("true", `pid_mode = "host"`), refused: "allow_host_namespaces"},
		{name: "AllowedModes/pid allowed", plugin: `allow_host_namespaces = ["pid"]`, task: shell("readlink /proc/self/ns/pid", `pid_mode = "host"`), prints: []string{hostPID}},
		{name: "AllowedModes/ipc allowed", plugin: `allow_host_namespaces = ["ipc"]`, task: shell("readlink /proc/self/ns/ipc", `ipc_mode = "host"`), prints: []string{hostIPC}},
		{name: "AllowedModes/uts", task: shell("true", `uts_mode = "host"`), refused: "uts_mode host"},
		{name: "Runtime", plugin: `allow_runtimes = ["io.containerd.runc.v1"]`, task: shell("true", `runtime = "io.containerd.runc.v1"`),
			check: func(t *testing.T, task *agentTask) {
				test.Eq(t, "io.containerd.runc.v1", containerRecord(t, task).Runtime.Name)
			}},
		{name: "Runtime/default", task: shell("true"), check: func(t *testing.T, task *agentTask) {
			test.Eq(t, "io.containerd.runc.v2", containerRecord(t, task).Runtime.Name)
		}},
		{name: "ChecksAllowRuntimes", task: shell("true", `runtime = "nvidia"`), refused: "allow_runtimes"},
		{name: "ChecksAllowRuntimes/not installed", task: shell("true", `runtime = "runsc"`), refused: "io.containerd.runsc.v1"},
		{name: "User", task: shell("id -u; id -g; id -G"), change: func(task *agentTask) { task.User = "worker" }, prints: []string{"1000", "1000 2000"}},
		{name: "User/numbers", task: shell("id -u; id -g"), change: func(task *agentTask) { task.User = "7:8" }, prints: []string{"7", "8"}},
		{name: "User/unknown", task: shell("true"), change: func(task *agentTask) { task.User = "nobody-here" }, refused: `look up user "nobody-here"`},
		{name: "GroupAdd", task: shell("id -G", `group_add = ["extra", "77"]`), prints: []string{"0 77 2000"}},
		{name: "GroupAdd/unknown", task: shell("true", `group_add = ["no-such-group"]`), refused: "no-such-group"},
		{name: "Init", task: shell("cat /proc/1/cmdline | tr '\\0' ' '; echo; (sleep 0.01 &); sleep 0.3; ps -o stat | grep -c Z", "init = true"),
			prints: []string{"0"}, exit: &plugin.ExitResult{ExitCode: 1}},
		{name: "Init/exit code", task: shell("exit 9", "init = true"), exit: &plugin.ExitResult{ExitCode: 9}},
		{name: "Entrypoint", task: "entrypoint = [\"/bin/echo\", \"entry\"]\nargs = [\"point\"]", prints: []string{"entry point"}},
		{name: "Entrypoint/not in the image", task: "entrypoint = [\"/bin/nothing\"]", refused: "check entrypoint, command and args"},
		{name: "WorkDir", task: shell("pwd", `work_dir = "/tmp"`), prints: []string{"/tmp"}},
		{name: "tty", task: shell("tty; echo err >&2; test -t 0 && test -t 1 && test -t 2 && echo terminal", "tty = true"), prints: []string{"/dev/pts/0\r", "err\r", "terminal\r"}},
		{name: "LogCollectionDisabled", plugin: "disable_log_collection = true", task: shell("echo lost; touch /local/ran"),
			lacks: []string{"lost"}, check: func(t *testing.T, task *agentTask) {
				capabilities, err := task.node.Capabilities(t.Context())
				must.NoError(t, err)
				test.True(t, capabilities.DisableLogCollection)
			}},
		{name: "Labels", task: shell("true", `labels = { team = "nlp" }`), check: func(t *testing.T, task *agentTask) {
			labels := containerRecord(t, task).Labels
			test.Eq(t, "nlp", labels["team"])
			test.Eq(t, task.AllocID, labels["com.hashicorp.nomad.alloc_id"])
			test.Eq(t, "job", labels["com.hashicorp.nomad.job_id"])
		}},
		{name: "ExtraLabels", plugin: `extra_labels = []`, task: shell("true"), check: func(t *testing.T, task *agentTask) {
			labels := containerRecord(t, task).Labels
			test.Eq(t, task.AllocID, labels["com.hashicorp.nomad.alloc_id"])
			test.MapNotContainsKey(t, labels, "com.hashicorp.nomad.job_id")
		}},
	})
}
