package spec

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestCapabilities(t *testing.T) {
	t.Parallel()
	defaults := DefaultCapabilities()
	for _, c := range []struct {
		name               string
		allowed, add, drop []string
		has, lacks         []string
		count              int
		refused            string
	}{
		{"DefaultCaps", defaults, nil, nil, []string{"CAP_CHOWN"}, []string{"CAP_NET_RAW"}, 13, ""},
		{"drop one, any spelling", defaults, nil, []string{"CAP_CHOWN", "Kill"}, nil, []string{"CAP_CHOWN", "CAP_KILL"}, 11, ""},
		{"drop all", defaults, nil, []string{"ALL"}, nil, []string{"CAP_CHOWN"}, 0, ""},
		{"drop all, add one", defaults, []string{"chown"}, []string{"all"}, []string{"CAP_CHOWN"}, nil, 1, ""},
		{"add a default", defaults, []string{"chown"}, nil, []string{"CAP_CHOWN"}, nil, 13, ""},
		{"add what is not allowed", defaults, []string{"net_raw", "sys_time", "chown"}, nil, nil, nil, 0, "cap_add net_raw, sys_time"},
		{"add what is allowed", append(DefaultCapabilities(), "net_raw"), []string{"NET_RAW"}, nil, []string{"CAP_NET_RAW"}, nil, 14, ""},
		{"allow fewer than the defaults", []string{"chown"}, nil, nil, []string{"CAP_CHOWN"}, []string{"CAP_KILL"}, 1, ""},
		{"add all of the allowed", []string{"chown", "net_raw"}, []string{"all"}, nil, []string{"CAP_CHOWN", "CAP_NET_RAW"}, nil, 2, ""},
		{"allow all", []string{"all"}, []string{"sys_admin"}, nil, []string{"CAP_SYS_ADMIN"}, nil, 14, ""},
		{"dropped wins", defaults, []string{"chown"}, []string{"chown"}, nil, []string{"CAP_CHOWN"}, 12, ""},
		{"nothing allowed", nil, nil, nil, nil, nil, 0, ""},
	} {
		got, err := Capabilities(c.allowed, c.add, c.drop)
		if c.refused != "" {
			test.ErrorContains(t, err, c.refused, test.Sprint(c.name))
			continue
		}
		must.NoError(t, err, must.Sprint(c.name))
		test.Len(t, c.count, got, test.Sprint(c.name))
		for _, name := range c.has {
			test.SliceContains(t, got, name, test.Sprint(c.name))
		}
		for _, name := range c.lacks {
			test.SliceNotContains(t, got, name, test.Sprint(c.name))
		}
		test.True(t, slices.IsSorted(got))
	}
}

func TestBuild_privileged(t *testing.T) {
	t.Parallel()
	task := plain()
	task.Privileged = true
	built := build(t, task, Host{CgroupVersion: 2, Capabilities: []string{"CAP_SYS_ADMIN"}})
	test.Eq(t, []string{"CAP_SYS_ADMIN"}, built.Process.Capabilities.Effective)
	test.SliceEmpty(t, built.Linux.MaskedPaths)
	test.SliceEmpty(t, built.Linux.ReadonlyPaths)
	test.Eq(t, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, built.Linux.Resources.Devices)
	for _, m := range built.Mounts {
		if m.Destination == "/sys" || m.Destination == "/sys/fs/cgroup" {
			test.SliceContains(t, m.Options, "rw", test.Sprint(m.Destination))
		}
	}
}

func TestBuild_sharesNamespacesOfTheNode(t *testing.T) {
	t.Parallel()
	task := plain()
	task.Hostname = "mine"
	task.Host = SharedNamespaces{PID: true, IPC: true, UTS: true, Cgroup: true}
	built := build(t, task, Host{CgroupVersion: 2})
	must.Len(t, 1, built.Linux.Namespaces)
	test.Eq(t, specs.MountNamespace, built.Linux.Namespaces[0].Type)
	test.Eq(t, "", built.Hostname, test.Sprint("it would be the node's own"))
	sources := map[string]string{}
	for _, m := range built.Mounts {
		sources[m.Destination] = m.Source
	}
	test.Eq(t, "/dev/shm", sources["/dev/shm"])
}

func TestBuild_sysctl(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		network Network
		shared  SharedNamespaces
		refused string
	}{
		{"net.core.somaxconn", Network{}, SharedNamespaces{}, ""},
		{"net.core.somaxconn", Network{Host: true}, SharedNamespaces{}, "node's network"},
		{"kernel.shmmax", Network{Host: true}, SharedNamespaces{}, ""},
		{"fs.mqueue.msg_max", Network{}, SharedNamespaces{}, ""},
		{"kernel.sem", Network{}, SharedNamespaces{IPC: true}, "ipc namespace"},
		{"kernel.panic", Network{}, SharedNamespaces{}, "whole node"},
		{"vm.swappiness", Network{}, SharedNamespaces{}, "whole node"},
	} {
		task := plain()
		task.Network, task.Host = c.network, c.shared
		task.Sysctl = map[string]string{c.name: "1"}
		built, err := Build(task, Host{CgroupVersion: 2})
		if c.refused != "" {
			test.ErrorContains(t, err, c.refused, test.Sprint(c.name))
			continue
		}
		must.NoError(t, err, must.Sprint(c.name))
		test.Eq(t, map[string]string{c.name: "1"}, built.Linux.Sysctl)
	}
}

func TestBuild_tmpfsAndSharedMemory(t *testing.T) {
	t.Parallel()
	task := plain()
	task.ShmSize = 4096
	task.Mounts = []Mount{
		{Tmpfs: true, Target: "/a"},
		{Tmpfs: true, Target: "/b", Size: 1000, Mode: "700", ReadOnly: true},
	}
	mounts := build(t, task, Host{CgroupVersion: 2}).Mounts
	test.Eq(t, []specs.Mount{
		{Destination: "/a", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=1777"}},
		{Destination: "/b", Source: "tmpfs", Type: "tmpfs", Options: []string{"nosuid", "nodev", "noexec", "mode=700", "size=1000", "ro"}},
	}, mounts[len(mounts)-2:])
	shm := slices.IndexFunc(mounts, func(m specs.Mount) bool { return m.Destination == "/dev/shm" })
	test.SliceContains(t, mounts[shm].Options, "size=4096")
}

func TestBuild_initRunsTheCommand(t *testing.T) {
	t.Parallel()
	task := plain()
	task.Init, task.TTY, task.NoNewPrivileges = []string{"/init", "--"}, true, false
	process := build(t, task, Host{CgroupVersion: 2}).Process
	test.Eq(t, []string{"/init", "--", "true"}, process.Args)
	test.True(t, process.Terminal)
	test.False(t, process.NoNewPrivileges)
}

func TestParseSeccomp_dockersForm(t *testing.T) {
	t.Parallel()
	machine := seccompMachine{rights: []string{"CAP_CHOWN"}, arch: "amd64", major: 6, minor: 1}
	profile, err := parseSeccomp([]byte(`{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
		"archMap": [
			{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
			{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
		],
		"syscalls": [
			{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
			{"name": "write", "action": "SCMP_ACT_ALLOW"},
			{"names": ["chown"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"]}},
			{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
			{"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
			{"names": ["arm_only"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
			{"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
			{"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
			{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
		]}`), machine)
	must.NoError(t, err)
	test.Eq(t, specs.ActErrno, profile.DefaultAction)
	test.Eq(t, uint(1), *profile.DefaultErrnoRet)
	test.Eq(t, []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}, profile.Architectures)
	var names []string
	for _, rule := range profile.Syscalls {
		names = append(names, rule.Names...)
	}
	test.Eq(t, []string{"read", "write", "chown", "ptrace", "personality"}, names)
	test.Eq(t, uint64(8), profile.Syscalls[4].Args[0].Value)
}

func TestParseSeccomp_refuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`not json`: "not a seccomp profile",
		`{}`:       "no defaultAction",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}`:                                              "syscalls[0]",
		`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}`: "minKernel",
	} {
		_, err := parseSeccomp([]byte(text), seccompMachine{})
		test.ErrorContains(t, err, want)
	}
}
