package driver

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
)

// validate checks every option by itself and names the wrong ones, all at once. What the operator allows is checked by
// [PluginConfig.permit].
func (c *TaskConfig) validate() error {
	return errors.Join(
		c.validateImage(),
		c.validateRuntimeOptions(),
		c.validateNetworkOptions(),
		c.validateMounts(),
		c.validateDevices(),
		c.validateSecurity(),
		c.validateLimits(),
		c.validateLabels(),
	)
}

func (c *TaskConfig) validateImage() error {
	var wrong []error
	if c.Environment != "" && c.Image != "" {
		wrong = append(wrong, errors.New("environment and image: only one of them may be set"))
	}
	if c.Environment != "" && c.Load != "" {
		wrong = append(wrong, errors.New("environment and load: an archive is loaded for image, not for an environment"))
	}
	switch c.ImagePullPolicy {
	case PullIfNotPresent, PullAlways, PullNever:
	default:
		wrong = append(wrong, fmt.Errorf("image_pull_policy %q: must be %s, %s or %s",
			c.ImagePullPolicy, PullIfNotPresent, PullAlways, PullNever))
	}
	if c.ImagePullTimeout != "" {
		wrong = append(wrong, positiveDuration("image_pull_timeout", c.ImagePullTimeout))
	}
	if c.Platform != "" {
		if _, err := platforms.Parse(c.Platform); err != nil {
			wrong = append(wrong, fmt.Errorf(`platform %q: must be an operating system and a processor, such as "linux/arm64"`, c.Platform))
		}
	}
	if c.Auth.Password != "" && c.Auth.Username == "" {
		wrong = append(wrong, errors.New("auth: password without username"))
	}
	return errors.Join(wrong...)
}

func positiveDuration(name, value string) error {
	if duration, err := time.ParseDuration(value); err != nil || duration <= 0 {
		return fmt.Errorf(`%s %q: must be a duration above zero, such as "5m"`, name, value)
	}
	return nil
}

func (c *TaskConfig) validateRuntimeOptions() error {
	var wrong []error
	if c.MaxConcurrency <= 0 {
		wrong = append(wrong, fmt.Errorf("max_concurrency %d: must be above zero", c.MaxConcurrency))
	}
	if c.Workers < 0 {
		wrong = append(wrong, fmt.Errorf("workers %d: must be zero (from the cpu share) or above", c.Workers))
	}
	if c.WorkDir != "" && !path.IsAbs(c.WorkDir) {
		wrong = append(wrong, fmt.Errorf("work_dir %q: must be an absolute path", c.WorkDir))
	}
	if slices.Contains(c.GroupAdd, "") {
		wrong = append(wrong, errors.New("group_add: a group needs a name or a number"))
	}
	return errors.Join(wrong...)
}

// The task's own choices of a network. Empty leaves it to the group.
const (
	networkHost = "host"
	networkNone = "none"
)

// maxHostname is the kernel's limit.
const maxHostname = 64

func (c *TaskConfig) validateNetworkOptions() error {
	var wrong []error
	if len(c.Hostname) > maxHostname || strings.ContainsAny(c.Hostname, " \t\n/") {
		wrong = append(wrong, fmt.Errorf("hostname %q: must be a host name of at most %d characters", c.Hostname, maxHostname))
	}
	for _, line := range c.ExtraHosts {
		if _, _, err := parseExtraHost(line); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, server := range c.DNSServers {
		if _, err := netip.ParseAddr(server); err != nil {
			wrong = append(wrong, fmt.Errorf("dns_servers %q: must be an IP address", server))
		}
	}
	for name, values := range map[string][]string{"dns_search_domains": c.DNSSearchDomains, "dns_options": c.DNSOptions} {
		for _, value := range values {
			if value == "" || strings.ContainsAny(value, " \t\n") {
				wrong = append(wrong, fmt.Errorf("%s %q: must be one word", name, value))
			}
		}
	}
	switch c.NetworkMode {
	case "", networkHost, networkNone:
	default:
		wrong = append(wrong, fmt.Errorf("network_mode %q: must be %s or %s; bridge and cni/* networks are set in the group's network block",
			c.NetworkMode, networkHost, networkNone))
	}
	if c.NetworkMode == networkNone && len(c.Ports) > 0 {
		wrong = append(wrong, errors.New("network_mode none and ports: nothing can reach a port of this task"))
	}
	return errors.Join(wrong...)
}

// parseExtraHost reads "name:address"; the address may be an IPv6 one, with or without brackets.
func parseExtraHost(line string) (name, address string, err error) {
	name, address, found := strings.Cut(line, ":")
	address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if _, notIP := netip.ParseAddr(address); !found || notIP != nil || name == "" || strings.ContainsAny(name, " \t\n#") {
		return "", "", fmt.Errorf(`extra_hosts %q: must be a name and an IP address, such as "db:10.0.0.7"`, line)
	}
	return name, address, nil
}

func (c *TaskConfig) validateMounts() error {
	var wrong []error
	targets := map[string]bool{}
	once := func(name, target string) {
		if target = path.Clean(target); targets[target] {
			wrong = append(wrong, fmt.Errorf("%s: something else is mounted at %s", name, target))
		}
		targets[target] = true
	}
	for i, mount := range c.Mounts {
		if err := mount.validate(); err != nil {
			wrong = append(wrong, fmt.Errorf("mount[%d]: %w", i, err))
		}
		once(fmt.Sprintf("mount[%d]", i), mount.Target)
	}
	for _, volume := range c.Volumes {
		mount, err := parseVolume(volume)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		once(fmt.Sprintf("volumes %q", volume), mount.Target)
	}
	if c.ShmSize < 0 {
		wrong = append(wrong, fmt.Errorf("shm_size %d: must not be below zero", c.ShmSize))
	}
	return errors.Join(wrong...)
}

// The kinds of mount of a task.
const (
	mountBind   = "bind"
	mountTmpfs  = "tmpfs"
	mountVolume = "volume"
)

func (m MountConfig) validate() error {
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return fmt.Errorf("target %q: must be an absolute path below /", m.Target)
	}
	if err := m.validateOptions(); err != nil {
		return err
	}
	switch m.Type {
	case mountBind:
		if m.Source == "" {
			return errors.New("source: a bind mount needs one")
		}
	case mountTmpfs:
		if m.Source != "" {
			return fmt.Errorf("source %q: a tmpfs has none", m.Source)
		}
	case mountVolume:
		if !isVolumeName(m.Source) {
			return fmt.Errorf("source %q: must be a volume's name, of letters, digits, _, . and -", m.Source)
		}
	default:
		return fmt.Errorf("type %q: must be %s, %s or %s", m.Type, mountBind, mountTmpfs, mountVolume)
	}
	return nil
}

func (m MountConfig) validateOptions() error {
	if m.Type != mountTmpfs && (m.TmpfsOptions != TmpfsOptions{}) {
		return fmt.Errorf("tmpfs_options: not for a mount of type %s", m.Type)
	}
	if m.TmpfsOptions.Size < 0 {
		return fmt.Errorf("tmpfs_options.size %d: must not be below zero", m.TmpfsOptions.Size)
	}
	if mode := m.TmpfsOptions.Mode; mode != "" {
		if _, err := strconv.ParseUint(mode, 8, 12); err != nil {
			return fmt.Errorf(`tmpfs_options.mode %q: must be a mode in octal, such as "1777"`, mode)
		}
	}
	if propagation := m.BindOptions.Propagation; propagation != "" {
		if !spec.IsPropagation(propagation) {
			return fmt.Errorf("bind_options.propagation %q: must be rprivate, rslave or rshared", propagation)
		}
	}
	return nil
}

// isVolumeName is docker's rule for names of volumes.
func isVolumeName(name string) bool {
	if name == "" || len(name) > 128 {
		return false
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return true
}

// parseVolume reads "source:target[:options]" as the bind mount it stands for.
func parseVolume(text string) (MountConfig, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return MountConfig{}, fmt.Errorf("volumes %q: must be source:target or source:target:options", text)
	}
	mount := MountConfig{Type: mountBind, Source: parts[0], Target: parts[1]}
	if len(parts) == 3 {
		for _, word := range strings.Split(parts[2], ",") {
			switch {
			case word == "ro":
				mount.Readonly = true
			case word == "rw":
			case spec.IsPropagation(word):
				mount.BindOptions.Propagation = word
			default:
				return MountConfig{}, fmt.Errorf("volumes %q: option %q: must be ro, rw, rprivate, rslave or rshared", text, word)
			}
		}
	}
	if err := mount.validate(); err != nil {
		return MountConfig{}, fmt.Errorf("volumes %q: %w", text, err)
	}
	return mount, nil
}

func (c *TaskConfig) validateDevices() error {
	var wrong []error
	for i, device := range c.Devices {
		switch {
		case !path.IsAbs(device.HostPath):
			wrong = append(wrong, fmt.Errorf("devices[%d]: host_path %q: must be an absolute path", i, device.HostPath))
		case device.ContainerPath != "" && !path.IsAbs(device.ContainerPath):
			wrong = append(wrong, fmt.Errorf("devices[%d]: container_path %q: must be an absolute path", i, device.ContainerPath))
		case strings.Trim(device.CgroupPermissions, "rwm") != "":
			wrong = append(wrong, fmt.Errorf("devices[%d]: cgroup_permissions %q: must be of r, w and m", i, device.CgroupPermissions))
		}
	}
	return errors.Join(wrong...)
}

func (c *TaskConfig) validateSecurity() error {
	var wrong []error
	for name, list := range map[string][]string{"cap_add": c.CapAdd, "cap_drop": c.CapDrop} {
		for _, capability := range list {
			if !spec.IsCapability(capability) {
				wrong = append(wrong, fmt.Errorf("%s %q: the kernel has no such capability", name, capability))
			}
		}
	}
	for name, mode := range c.namespaceModes() {
		if mode != "" && mode != "host" && mode != "private" {
			wrong = append(wrong, fmt.Errorf("%s %q: must be host or private", name, mode))
		}
	}
	if _, err := spec.Rlimits(c.Ulimit); err != nil {
		wrong = append(wrong, err)
	}
	for name := range c.Sysctl {
		if name == "" || strings.ContainsAny(name, " \t\n=") {
			wrong = append(wrong, fmt.Errorf("sysctl %q: not the name of a kernel parameter", name))
		}
	}
	return errors.Join(wrong...)
}

// namespaceModes are the options that may share a namespace of the node, by name.
func (c *TaskConfig) namespaceModes() map[string]string {
	return map[string]string{"pid_mode": c.PIDMode, "ipc_mode": c.IPCMode, "uts_mode": c.UTSMode, "cgroupns": c.CgroupNS}
}

func (c *TaskConfig) validateLimits() error {
	var wrong []error
	within := func(name string, value, least, most int64) {
		if value < least || value > most {
			wrong = append(wrong, fmt.Errorf("%s %d: must be from %d to %d", name, value, least, most))
		}
	}
	if c.PidsLimit < 0 {
		wrong = append(wrong, fmt.Errorf("pids_limit %d: must not be below zero", c.PidsLimit))
	}
	within("oom_score_adj", int64(c.OOMScoreAdj), 0, 1000)
	if c.CPUCFSPeriod != 0 {
		within("cpu_cfs_period", c.CPUCFSPeriod, 1000, 1000000)
	}
	if c.MemorySwappiness != nil {
		within("memory_swappiness", *c.MemorySwappiness, 0, 100)
	}
	if c.MemoryHardLimit < 0 {
		wrong = append(wrong, fmt.Errorf("memory_hard_limit %d: must not be below zero", c.MemoryHardLimit))
	}
	if _, err := spec.ParseSwap(c.MemorySwap); err != nil {
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
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
