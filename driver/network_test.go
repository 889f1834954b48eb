package driver

import (
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

func TestListenAddress(t *testing.T) {
	t.Parallel()
	bridge := &plugin.NetworkIsolation{Mode: plugin.NetworkGroup, Path: "/var/run/netns/x"}
	ports := []plugin.Port{
		{Label: "http", Host: 20000, To: 8080, HostIP: "192.0.2.1"},
		{Label: "same", Host: 20001},
		{Label: "v6", Host: 20002, HostIP: "2001:db8::1"},
	}
	for _, c := range []struct {
		labels  []string
		network *plugin.NetworkIsolation
		want    string
	}{
		{nil, nil, ""},
		{[]string{"http"}, nil, "192.0.2.1:20000"},
		{[]string{"same", "http"}, nil, "127.0.0.1:20001"},
		{[]string{"v6"}, nil, "[2001:db8::1]:20002"},
		{[]string{"http"}, bridge, "0.0.0.0:8080"},
		{[]string{"same"}, bridge, "0.0.0.0:20001"},
		{[]string{"old"}, nil, "192.0.2.9:20003"},
	} {
		config := &plugin.TaskConfig{Network: c.network, Resources: plugin.Resources{
			Ports: ports,
			Networks: []plugin.NetworkResource{{IP: "192.0.2.9",
				DynamicPorts: []plugin.Port{{Label: "old", Host: 20003}}}},
		}}
		got, err := listenAddress(config, TaskConfig{Ports: c.labels})
		must.NoError(t, err)
		test.Eq(t, c.want, got)
	}
	_, err := listenAddress(&plugin.TaskConfig{}, TaskConfig{Ports: []string{"http", "grpc"}})
	test.ErrorContains(t, err, `no port is labelled "http"`)
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	host := "# made by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2\ndomain old.test\noptions rotate\n"
	for _, c := range []struct {
		dns  *plugin.DNS
		want string
	}{
		{nil, host},
		{&plugin.DNS{}, "nameserver 192.0.2.1\nnameserver 192.0.2.2\ndomain old.test\noptions rotate\n"},
		{&plugin.DNS{Servers: []string{"192.0.2.9"}}, "domain old.test\noptions rotate\nnameserver 192.0.2.9\n"},
		{&plugin.DNS{Searches: []string{"a.test", "b.test"}, Options: []string{"ndots:2"}},
			"nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.test b.test\noptions ndots:2\n"},
	} {
		test.Eq(t, c.want, string(resolvConf([]byte(host), c.dns)))
	}
}

func TestCgroupPlace(t *testing.T) {
	t.Parallel()
	const alloc, scope = "a1", "a1.web"
	for _, c := range []struct {
		name    string
		version int
		given   string
		want    cgroupPlace
	}{
		{"none given, v2", 2, "", cgroupPlace{Path: "/nomad-promptflow/id", Cpus: "0,2"}},
		{"none given, v1", 1, "", cgroupPlace{Path: "/nomad-promptflow/id", Cpus: "0,2"}},
		{"v2", 2, "/cg/nomad.slice/share.slice/" + scope + ".scope",
			cgroupPlace{Path: "/nomad.slice/share.slice/" + scope + ".scope", Cpus: "0,2"}},
		{"v2 of old agents", 2, "/cg/nomad.slice/" + scope + ".scope", cgroupPlace{Path: "/nomad.slice/" + scope + ".scope", Cpus: "0,2"}},
		{"v1 shared", 1, "/cg/cpuset/nomad/share", cgroupPlace{Path: "/nomad/" + scope, Cpuset: "/cg/cpuset/nomad/share"}},
		{"v1 with cores of its own", 1, "/cg/cpuset/nomad/reserve/" + scope,
			cgroupPlace{Path: "/nomad/" + scope, Cpuset: "/cg/cpuset/nomad/reserve/" + scope, Cores: "0,2"}},
		{"outside of the hierarchy", 2, "/etc/" + scope, cgroupPlace{Path: "/nomad-promptflow/id", Cpus: "0,2"}},
		{"a way out of the hierarchy", 2, "/cg/../etc", cgroupPlace{Path: "/nomad-promptflow/id", Cpus: "0,2"}},
	} {
		config := &plugin.TaskConfig{AllocID: alloc, Name: "web", Resources: plugin.Resources{
			Linux: &plugin.LinuxResources{CgroupPath: c.given, CpusetCPUs: "0,2"},
		}}
		test.Eq(t, c.want, cgroups{root: "/cg", version: c.version}.place(config, "id"), test.Sprint(c.name))
	}
}
