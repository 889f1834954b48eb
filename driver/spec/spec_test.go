package spec

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// plain is the smallest task that can be built.
func plain() Task {
	return Task{
		Command: "true", CgroupsPath: "/pf/x", Network: Network{Host: true}, Resources: Resources{CPUMHz: 100, MemoryMB: 64},
		NoNewPrivileges: true,
	}
}

func build(t *testing.T, task Task, host Host) *specs.Spec {
	t.Helper()
	built, err := Build(task, host)
	must.NoError(t, err)
	return built
}

func TestArgs_followDocker(t *testing.T) {
	t.Parallel()
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"image-cmd"}}
	for _, c := range []struct {
		name string
		task Task
		want []string
	}{
		{"image's own", Task{Image: image}, []string{"/entry", "image-cmd"}},
		{"args replace the image's command", Task{Image: image, Args: []string{"a"}}, []string{"/entry", "a"}},
		{"command replaces it too", Task{Image: image, Command: "c"}, []string{"/entry", "c"}},
		{"command with args", Task{Image: image, Command: "c", Args: []string{"a"}}, []string{"/entry", "c", "a"}},
		{"entrypoint drops the image's command", Task{Image: image, Entrypoint: []string{"e", "f"}}, []string{"e", "f"}},
		{"entrypoint with args", Task{Image: image, Entrypoint: []string{"e"}, Args: []string{"a"}}, []string{"e", "a"}},
	} {
		got, err := Args(c.task)
		must.NoError(t, err, must.Sprint(c.name))
		test.Eq(t, c.want, got, test.Sprint(c.name))
	}
	_, err := Args(Task{})
	test.ErrorContains(t, err, `set "command"`)
}

func TestEnv_laterLayersWin(t *testing.T) {
	t.Parallel()
	got := Env([]string{"A=image", "B=image", "EQUALS=a=b"}, map[string]string{"B": "driver", "C": "driver"}, map[string]string{"C": "task"})
	test.Eq(t, []string{"A=image", "B=driver", "C=task", "EQUALS=a=b", "PATH=" + defaultPath}, got)
	test.Eq(t, []string{"PATH=/mine"}, Env([]string{"PATH=/mine"}))
}

func TestParseUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user  string
		want  User
		known bool
	}{
		{"", User{}, true},
		{"root", User{}, true},
		{"0", User{}, true},
		{"1000:2000", User{UID: 1000, GID: 2000}, true},
		{"1000", User{}, false},
		{"worker", User{}, false},
		{"worker:staff", User{}, false},
		{"1000:staff", User{}, false},
		{"-1:5", User{}, false},
		{"99999999999:5", User{}, false},
	} {
		got, known := ParseUser(c.user, nil)
		test.Eq(t, c.known, known, test.Sprint(c.user))
		test.Eq(t, c.want, got, test.Sprint(c.user))
	}
}

func TestBuild_memory(t *testing.T) {
	t.Parallel()
	const mb = int64(1) << 20
	for _, c := range []struct {
		name                     string
		reserve, most            int64
		limit, reservation, swap int64 // 0: not set
		host                     Host
	}{
		{"reservation is the limit", 64, 0, 64 * mb, 0, 64 * mb, Host{CgroupVersion: 2}},
		{"oversubscribed", 64, 128, 128 * mb, 64 * mb, 128 * mb, Host{CgroupVersion: 1, SwapAccounting: true}},
		{"kernel cannot limit swap", 64, 0, 64 * mb, 0, 0, Host{CgroupVersion: 1}},
		{"unlimited", 64, -1, 0, 64 * mb, 0, Host{CgroupVersion: 2}},
	} {
		task := plain()
		task.Resources.MemoryMB, task.Resources.MemoryMaxMB = c.reserve, c.most
		memory := build(t, task, c.host).Linux.Resources.Memory
		test.Eq(t, c.limit, deref(memory.Limit), test.Sprint(c.name))
		test.Eq(t, c.reservation, deref(memory.Reservation), test.Sprint(c.name))
		test.Eq(t, c.swap, deref(memory.Swap), test.Sprint(c.name))
	}
}

func deref(value *int64) int64 {
	if value == nil {
		return 0
	}
	return *value
}

func TestBuild_cpuShares(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		task, node int64
		want       uint64
	}{
		{500, 0, 500},
		{500, 8000, 500},
		{1, 8000, 2},
		{300_000, 0, 262144},
		{524_288, 524_288, 262144},
		{262_144, 524_288, 131072},
	} {
		task := plain()
		task.Resources.CPUMHz, task.Resources.NodeMHz = c.task, c.node
		got := build(t, task, Host{CgroupVersion: 2}).Linux.Resources.CPU
		test.Eq(t, c.want, *got.Shares, test.Sprintf("%d of %d MHz", c.task, c.node))
	}
}

func TestBuild_namespaces(t *testing.T) {
	t.Parallel()
	kinds := func(network Network, host Host) map[specs.LinuxNamespaceType]string {
		task := plain()
		task.Network = network
		found := map[specs.LinuxNamespaceType]string{}
		for _, n := range build(t, task, host).Linux.Namespaces {
			found[n.Type] = n.Path
		}
		return found
	}
	own := map[specs.LinuxNamespaceType]string{"pid": "", "ipc": "", "uts": "", "mount": ""}
	test.Eq(t, own, kinds(Network{Host: true}, Host{CgroupVersion: 1}))
	own["cgroup"] = ""
	test.Eq(t, own, kinds(Network{Host: true}, Host{CgroupVersion: 2}))
	own["network"] = ""
	test.Eq(t, own, kinds(Network{}, Host{CgroupVersion: 2}))
	own["network"] = "/var/run/netns/x"
	test.Eq(t, own, kinds(Network{Namespace: "/var/run/netns/x"}, Host{CgroupVersion: 2}))
}

func TestBuild_capabilities(t *testing.T) {
	t.Parallel()
	task := plain()
	var err error
	task.Capabilities, err = Capabilities(DefaultCapabilities(), nil, nil)
	must.NoError(t, err)
	root := build(t, task, Host{CgroupVersion: 2}).Process.Capabilities
	test.SliceContains(t, root.Effective, "CAP_CHOWN")
	test.SliceNotContains(t, root.Bounding, "CAP_NET_RAW")
	test.SliceNotContains(t, root.Bounding, "CAP_SYS_ADMIN")
	test.SliceEmpty(t, root.Ambient)
	test.SliceEmpty(t, root.Inheritable)
	task.User = User{UID: 1000, GID: 1000}
	other := build(t, task, Host{CgroupVersion: 2}).Process.Capabilities
	test.SliceEmpty(t, other.Effective)
	test.SliceEmpty(t, other.Permitted)
	test.Eq(t, root.Bounding, other.Bounding)
}

func TestBuild_mounts(t *testing.T) {
	t.Parallel()
	task := plain()
	task.Mounts = []Mount{
		{Source: "/a", Target: "/x/../alloc"},
		{Source: "/b", Target: "/srv", ReadOnly: true, Propagation: "host-to-task"},
		{Source: "/c", Target: "/both", Propagation: "bidirectional"},
	}
	mounts := build(t, task, Host{CgroupVersion: 2}).Mounts
	got := mounts[len(mounts)-3:]
	test.Eq(t, []specs.Mount{
		{Source: "/a", Destination: "/alloc", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}},
		{Source: "/b", Destination: "/srv", Type: "bind", Options: []string{"rbind", "rslave", "ro"}},
		{Source: "/c", Destination: "/both", Type: "bind", Options: []string{"rbind", "rshared", "rw"}},
	}, got)

	for _, bad := range []Mount{
		{Source: "a", Target: "/x"}, {Source: "/a", Target: "x"}, {Source: "/a", Target: "/x", Propagation: "sideways"},
	} {
		task.Mounts = []Mount{bad}
		_, err := Build(task, Host{CgroupVersion: 2})
		test.ErrorContains(t, err, "mount", test.Sprint(bad))
	}
}

func TestBuild_devices(t *testing.T) {
	t.Parallel()
	task := plain()
	task.Devices = []Device{{Path: "/dev/gpu", Type: "c", Major: 195, Minor: 0, Mode: 0o660, GID: 44, Permissions: "rw"}}
	linux := build(t, task, Host{CgroupVersion: 2}).Linux
	must.Len(t, 1, linux.Devices)
	test.Eq(t, "/dev/gpu", linux.Devices[0].Path)
	test.Eq(t, uint32(44), *linux.Devices[0].GID)
	must.Len(t, 2, linux.Resources.Devices)
	test.False(t, linux.Resources.Devices[0].Allow, test.Sprint("everything else is denied first"))
	test.Eq(t, "rw", linux.Resources.Devices[1].Access)
	test.Eq(t, int64(195), *linux.Resources.Devices[1].Major)
}

func TestBuild_hardens(t *testing.T) {
	t.Parallel()
	built := build(t, plain(), Host{CgroupVersion: 2})
	test.True(t, built.Process.NoNewPrivileges)
	test.SliceEmpty(t, built.Process.Rlimits, test.Sprint("limits are inherited: raising one needs a right the plugin may lack"))
	test.SliceContains(t, built.Linux.MaskedPaths, "/proc/kcore")
	test.SliceContains(t, built.Linux.ReadonlyPaths, "/proc/sys")
	test.Eq(t, "/", built.Process.Cwd)
}

func TestBuild_refuses(t *testing.T) {
	t.Parallel()
	task := plain()
	task.WorkDir = "relative"
	_, err := Build(task, Host{})
	test.ErrorContains(t, err, "work_dir")
	task = plain()
	task.CgroupsPath = "relative"
	_, err = Build(task, Host{})
	test.ErrorContains(t, err, "cgroup path")
}
