package agent

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func newAlloc(t *testing.T, config AllocConfig) *Alloc {
	t.Helper()
	config.Dir = filepath.Join(t.TempDir(), "allocs", "a1")
	config.Job = orElse(config.Job, "job")
	config.Task = orElse(config.Task, "runtime")
	a, err := NewAlloc(config)
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, a.Destroy()) })
	return a
}

// The modes are those that an agent was seen to leave behind.
func TestNewAlloc_makesFoldersAsAnAgent(t *testing.T) {
	t.Parallel()
	a := newAlloc(t, AllocConfig{})
	want := map[string]fs.FileMode{
		".":                               fs.ModeDir | 0o755,
		"alloc":                           fs.ModeDir | 0o777,
		"alloc/data":                      fs.ModeDir | 0o777,
		"alloc/logs":                      fs.ModeDir | 0o777,
		"alloc/tmp":                       fs.ModeDir | 0o777,
		"runtime":                         fs.ModeDir | 0o777,
		"runtime/local":                   fs.ModeDir | 0o777,
		"runtime/secrets":                 fs.ModeDir | 0o777,
		"runtime/private":                 fs.ModeDir | 0o777,
		"runtime/tmp":                     fs.ModeDir | fs.ModeSticky | 0o777,
		"alloc/logs/.runtime.stdout.fifo": fs.ModeNamedPipe | 0o600,
		"alloc/logs/.runtime.stderr.fifo": fs.ModeNamedPipe | 0o600,
		"alloc/logs/runtime.stdout.0":     0o644,
		"alloc/logs/runtime.stderr.0":     0o644,
	}
	got := map[string]fs.FileMode{}
	root := filepath.Dir(a.TaskDir())
	must.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		got[name] = info.Mode()
		return err
	}))
	test.Eq(t, want, got)
	if os.Geteuid() == 0 {
		uid, gid, err := nobody()
		must.NoError(t, err)
		info, err := os.Stat(a.SecretsDir())
		must.NoError(t, err)
		owner := info.Sys().(*syscall.Stat_t)
		test.Eq(t, []uint32{uint32(uid), uint32(gid)}, []uint32{owner.Uid, owner.Gid})
	}
}

func TestAlloc_Destroy_removesEverythingAndMayBeRepeated(t *testing.T) {
	t.Parallel()
	a := newAlloc(t, AllocConfig{})
	must.NoError(t, os.WriteFile(filepath.Join(a.TaskDir(), "local", "f"), []byte("x"), 0o400))
	must.NoError(t, a.Destroy())
	must.DirNotExists(t, filepath.Dir(a.TaskDir()))
	must.NoError(t, a.Destroy())
}

func TestNewAlloc_refuses(t *testing.T) {
	t.Parallel()
	full := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(full, "precious"), nil, 0o600))
	tests := []struct {
		name   string
		config AllocConfig
		want   string
	}{
		{"no folder", AllocConfig{Job: "j", Task: "t"}, "must be named"},
		{"no job", AllocConfig{Dir: "/x", Task: "t"}, "must be named"},
		{"no task", AllocConfig{Dir: "/x", Job: "j"}, "must be named"},
		{"relative folder", AllocConfig{Dir: "x", Job: "j", Task: "t"}, `folder "x": must be absolute`},
		{"task outside its folder", AllocConfig{Dir: "/x", Job: "j", Task: "../../etc"}, "cannot be the name of its folder"},
		{"task above", AllocConfig{Dir: "/x", Job: "j", Task: ".."}, "cannot be the name of its folder"},
		{"task in the shared folder's place", AllocConfig{Dir: "/x", Job: "j", Task: "alloc"}, "cannot be the name of its folder"},
		{"folder with something in it", AllocConfig{Dir: full, Job: "j", Task: "t"}, `must be empty, holds "precious"`},
		{"folder that is a file", AllocConfig{Dir: filepath.Join(full, "precious"), Job: "j", Task: "t"}, "not a directory"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			_, err := NewAlloc(tc.config)
			must.ErrorContains(t, err, tc.want)
		})
	}
	must.FileExists(t, filepath.Join(full, "precious"))
}

// The names and values are those that a task on Nomad's own agent saw.
func TestAlloc_Task(t *testing.T) {
	t.Parallel()
	network := &plugin.NetworkIsolation{Mode: plugin.NetworkGroup, Path: "/run/netns/x"}
	ports := []plugin.Port{{Label: "http", Host: 22889, To: 8080, HostIP: "127.0.0.1"}, {Label: "a-b", Host: 5, HostIP: "::1"}}
	a := newAlloc(t, AllocConfig{
		ID: "b66148d1-44bf-ca53-4c04-c0e31bca05d4", Job: "h1", Group: "g", Task: "sleepy", CPU: 100, MemoryMB: 77, MemoryMaxMB: 155,
		NodeID: "n1", NodeName: "vm", Ports: ports, Network: network, DNS: &plugin.DNS{Servers: []string{"1.1.1.1"}}, User: "nobody",
		Env: map[string]string{"A": "b", "NOMAD_REGION": "mine"}, CgroupPath: "/sys/fs/cgroup/x",
	})
	task := a.Task([]byte("config"))
	must.RegexMatch(t, regexp.MustCompile(`^b66148d1-44bf-ca53-4c04-c0e31bca05d4/sleepy/[0-9a-f]{8}$`), task.ID)
	test.NotEq(t, task.ID, a.Task(nil).ID, test.Sprint("each start has an id of its own"))
	root := filepath.Dir(a.TaskDir())
	test.Eq(t, &plugin.TaskConfig{
		ID: task.ID, Name: "sleepy", JobID: "h1", JobName: "h1", GroupName: "g", AllocID: "b66148d1-44bf-ca53-4c04-c0e31bca05d4",
		Namespace: "default", NodeID: "n1", NodeName: "vm", DriverConfig: []byte("config"), User: "nobody", AllocDir: root,
		StdoutPath: root + "/alloc/logs/.sleepy.stdout.fifo", StderrPath: root + "/alloc/logs/.sleepy.stderr.fifo",
		Network: network, DNS: &plugin.DNS{Servers: []string{"1.1.1.1"}},
		Resources: plugin.Resources{
			CPUShares: 100, MemoryMB: 77, MemoryMaxMB: 155, Ports: ports,
			Linux: &plugin.LinuxResources{CPUShares: 100, MemoryLimitBytes: 162529280, CgroupPath: "/sys/fs/cgroup/x"},
		},
		Env: map[string]string{
			"A": "b", "NOMAD_REGION": "mine",
			"NOMAD_ALLOC_DIR": "/alloc", "NOMAD_TASK_DIR": "/local", "NOMAD_SECRETS_DIR": "/secrets",
			"NOMAD_ALLOC_ID": "b66148d1-44bf-ca53-4c04-c0e31bca05d4", "NOMAD_SHORT_ALLOC_ID": "b66148d1", "NOMAD_ALLOC_INDEX": "0",
			"NOMAD_ALLOC_NAME": "h1.g[0]", "NOMAD_JOB_ID": "h1", "NOMAD_JOB_NAME": "h1", "NOMAD_GROUP_NAME": "g", "NOMAD_TASK_NAME": "sleepy",
			"NOMAD_NAMESPACE": "default", "NOMAD_DC": "dc1",
			"NOMAD_CPU_LIMIT": "100", "NOMAD_MEMORY_LIMIT": "77", "NOMAD_MEMORY_MAX_LIMIT": "155",
			"NOMAD_PORT_http": "8080", "NOMAD_ALLOC_PORT_http": "8080", "NOMAD_HOST_PORT_http": "22889", "NOMAD_IP_http": "127.0.0.1",
			"NOMAD_ADDR_http": "127.0.0.1:22889", "NOMAD_HOST_IP_http": "127.0.0.1", "NOMAD_HOST_ADDR_http": "127.0.0.1:22889",
			"NOMAD_PORT_a_b": "5", "NOMAD_ALLOC_PORT_a_b": "5", "NOMAD_HOST_PORT_a_b": "5", "NOMAD_IP_a_b": "::1",
			"NOMAD_ADDR_a_b": "[::1]:5", "NOMAD_HOST_IP_a_b": "::1", "NOMAD_HOST_ADDR_a_b": "[::1]:5",
		},
	}, task)
}

func TestAlloc_Task_withoutMemoryLimit(t *testing.T) {
	t.Parallel()
	task := newAlloc(t, AllocConfig{MemoryMB: 64, MemoryMaxMB: -1}).Task(nil)
	test.Eq(t, int64(64<<20), task.Resources.Linux.MemoryLimitBytes)
	test.MapNotContainsKey(t, task.Env, "NOMAD_MEMORY_MAX_LIMIT")
	must.RegexMatch(t, regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`), task.AllocID)
}

func TestAlloc_Variables_reachTheConfiguration(t *testing.T) {
	t.Parallel()
	a := newAlloc(t, AllocConfig{NodeID: "n1", NodeName: "vm"})
	encoded, err := DecodeConfig(attr("string"), `x = "${NOMAD_TASK_NAME} ${attr.kernel.name} ${meta.rack} ${node.unique.id} ${node.region}"`,
		a.Variables(map[string]string{"kernel.name": "linux"}, map[string]string{"rack": "r1"}))
	must.NoError(t, err)
	test.Eq(t, any(map[string]any{"x": "runtime linux r1 n1 global"}), onWire(t, encoded))
}

func TestNewAlloc_keepsSecretsInMemory(t *testing.T) {
	t.Parallel()
	harness.Integration(t)
	a := newAlloc(t, AllocConfig{SecretsTmpfs: true})
	for _, dir := range []string{a.SecretsDir(), filepath.Join(a.TaskDir(), "private")} {
		mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
		must.NoError(t, err)
		must.SliceLen(t, 1, mounts)
		test.Eq(t, "tmpfs", mounts[0].FSType)
		test.True(t, strings.Contains(mounts[0].Options, "noexec"), test.Sprint(mounts[0].Options))
		info, err := os.Stat(dir)
		must.NoError(t, err)
		test.Eq(t, fs.ModeDir|0o777, info.Mode())
	}
	must.NoError(t, a.Destroy())
	must.DirNotExists(t, filepath.Dir(a.TaskDir()))
}

func TestAlloc_Destroy_emptiesNoForeignMount(t *testing.T) {
	t.Parallel()
	harness.Integration(t)
	a := newAlloc(t, AllocConfig{})
	volume := t.TempDir()
	precious := filepath.Join(volume, "precious")
	must.NoError(t, os.WriteFile(precious, nil, 0o600))
	target := filepath.Join(a.TaskDir(), "local")
	must.NoError(t, unix.Mount(volume, target, "", unix.MS_BIND, ""))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			must.NoError(t, unix.Unmount(target, unix.MNT_DETACH))
		}
	})
	must.ErrorContains(t, a.Destroy(), "is still mounted")
	must.FileExists(t, precious)
	must.NoError(t, unix.Unmount(target, 0))
	mounted = false
	must.NoError(t, a.Destroy())
	must.FileExists(t, precious)
}
