package driver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// network is the one the task asks for, else the one that the agent made for it, else the node's.
func network(config *plugin.TaskConfig, options TaskConfig) spec.Network {
	switch isolation := config.Network; {
	case options.NetworkMode == networkHost:
		return spec.Network{Host: true}
	case options.NetworkMode == networkNone:
		return spec.Network{}
	case isolation == nil || (isolation.Mode == plugin.NetworkHost && isolation.Path == ""):
		return spec.Network{Host: true}
	default:
		return spec.Network{Namespace: isolation.Path}
	}
}

// hostname of the container: the task's option, else what the network says, else the node's own name in the node's own
// network, else the container's id.
func hostname(config *plugin.TaskConfig, options TaskConfig, id string) (string, error) {
	if options.Hostname != "" {
		return options.Hostname, nil
	}
	if config.Network != nil && config.Network.Hosts != nil && config.Network.Hosts.Hostname != "" {
		return config.Network.Hosts.Hostname, nil
	}
	if network(config, options).Host {
		name, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("read hostname: %w", err)
		}
		return name, nil
	}
	return id[:min(len(id), 15)], nil
}

// listenAddress is where the first of the named ports makes the runtime listen. In the node's network that is the port the
// agent assigned; in a namespace it is the inner one, on every address, since the agent forwards to it.
func listenAddress(config *plugin.TaskConfig, options TaskConfig) (string, error) {
	var first *plugin.Port
	for _, label := range options.Ports {
		port, err := findPort(config, label)
		if err != nil {
			return "", err
		}
		if first == nil {
			first = port
		}
	}
	if first == nil {
		return "", nil
	}
	if network(config, options).Host {
		ip := first.HostIP
		if ip == "" {
			ip = "127.0.0.1"
		}
		return net.JoinHostPort(ip, strconv.Itoa(int(first.Host))), nil
	}
	inner := first.To
	if inner <= 0 {
		inner = first.Host
	}
	return net.JoinHostPort("0.0.0.0", strconv.Itoa(int(inner))), nil
}

// findPort looks in the group's network, then in the task's own of old jobs.
func findPort(config *plugin.TaskConfig, label string) (*plugin.Port, error) {
	for _, port := range config.Resources.Ports {
		if port.Label == label {
			return &port, nil
		}
	}
	for _, network := range config.Resources.Networks {
		for _, port := range slices.Concat(network.ReservedPorts, network.DynamicPorts) {
			if port.Label == label {
				if port.HostIP == "" {
					port.HostIP = network.IP
				}
				return &port, nil
			}
		}
	}
	return nil, fmt.Errorf("ports: no port is labelled %q: add it to the group's network block", label)
}

// Where the resolver's configuration is on a node. The second is the real one behind systemd's stub, whose loopback
// address means nothing in another network namespace.
const (
	resolvConfPath        = "/etc/resolv.conf"
	resolvConfBehindStub  = "/run/systemd/resolve/resolv.conf"
	systemdStubNameserver = "127.0.0.53"
)

// writeNetworkFiles writes the task's own resolv.conf, hosts and hostname into dir and returns the mounts that show them.
func writeNetworkFiles(dir, hostname string, config *plugin.TaskConfig, options TaskConfig) ([]spec.Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make folder for network files: %w", err)
	}
	shared := network(config, options).Host
	resolv, err := hostResolvConf(shared)
	if err != nil {
		return nil, err
	}
	hosts, err := hostsFile(shared, hostname, config.Network)
	if err != nil {
		return nil, err
	}
	if hosts, err = withExtraHosts(hosts, options.ExtraHosts); err != nil {
		return nil, err
	}
	files := []struct {
		name, target string
		content      []byte
	}{
		{"resolv.conf", "/etc/resolv.conf", resolvConf(resolv, taskDNS(config.DNS, options))},
		{"hosts", "/etc/hosts", hosts},
		{"hostname", "/etc/hostname", []byte(hostname + "\n")},
	}
	mounts := make([]spec.Mount, 0, len(files))
	for _, file := range files {
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, file.content, 0o644); err != nil {
			return nil, fmt.Errorf("write network file: %w", err)
		}
		mounts = append(mounts, spec.Mount{Source: path, Target: file.target})
	}
	return mounts, nil
}

func hostResolvConf(sharedNetwork bool) ([]byte, error) {
	content, err := os.ReadFile(resolvConfPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	if sharedNetwork || !bytes.Contains(content, []byte(systemdStubNameserver)) {
		return content, nil
	}
	if behind, err := os.ReadFile(resolvConfBehindStub); err == nil {
		return behind, nil
	}
	return content, nil
}

// taskDNS is what the task says over what its group says.
func taskDNS(group *plugin.DNS, options TaskConfig) *plugin.DNS {
	if len(options.DNSServers)+len(options.DNSSearchDomains)+len(options.DNSOptions) == 0 {
		return group
	}
	var dns plugin.DNS
	if group != nil {
		dns = *group
	}
	for _, own := range []struct {
		values []string
		into   *[]string
	}{
		{options.DNSServers, &dns.Servers}, {options.DNSSearchDomains, &dns.Searches}, {options.DNSOptions, &dns.Options},
	} {
		if len(own.values) > 0 {
			*own.into = own.values
		}
	}
	return &dns
}

// withExtraHosts adds lines to a hosts file.
func withExtraHosts(hosts []byte, lines []string) ([]byte, error) {
	if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
		hosts = append(hosts, '\n')
	}
	for _, line := range lines {
		name, address, err := parseExtraHost(line)
		if err != nil {
			return nil, err
		}
		hosts = fmt.Appendf(hosts, "%s\t%s\n", address, name)
	}
	return hosts, nil
}

// resolvConf is the node's resolver configuration with what dns says put in the place of its lines.
func resolvConf(host []byte, dns *plugin.DNS) []byte {
	if dns == nil {
		return host
	}
	replaced := map[string][]string{}
	if len(dns.Servers) > 0 {
		replaced["nameserver"] = nil
		for _, server := range dns.Servers {
			replaced["nameserver"] = append(replaced["nameserver"], "nameserver "+server)
		}
	}
	if len(dns.Searches) > 0 {
		replaced["search"] = []string{"search " + strings.Join(dns.Searches, " ")}
	}
	if len(dns.Options) > 0 {
		replaced["options"] = []string{"options " + strings.Join(dns.Options, " ")}
	}
	var lines []string
	for line := range strings.Lines(string(host)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		keyword := fields[0]
		if keyword == "domain" {
			keyword = "search"
		}
		if _, ok := replaced[keyword]; !ok {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	for _, keyword := range []string{"nameserver", "search", "options"} {
		lines = append(lines, replaced[keyword]...)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}

// hostsFile is the node's own hosts file in its own network, and a new one in a namespace.
func hostsFile(sharedNetwork bool, hostname string, isolation *plugin.NetworkIsolation) ([]byte, error) {
	if sharedNetwork {
		content, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read hosts file: %w", err)
		}
		if err == nil {
			return content, nil
		}
	}
	address := "127.0.0.1"
	if isolation != nil && isolation.Hosts != nil && isolation.Hosts.Address != "" {
		address = isolation.Hosts.Address
	}
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	fmt.Fprintf(&b, "%s\t%s\n", address, hostname)
	return b.Bytes(), nil
}
