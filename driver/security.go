package driver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/opencontainers/runtime-spec/specs-go"

	hostapparmor "github.com/containerd/containerd/v2/pkg/apparmor"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// unconfined switches a profile off.
const unconfined = "unconfined"

// defaultApparmorProfile is the name under which containerd's own profile is loaded.
const defaultApparmorProfile = "nomad-promptflow-default"

// apparmorProfile is the profile of a task. A node without AppArmor has none, and none to switch off.
func apparmorProfile(options TaskConfig) (string, error) {
	supported := hostapparmor.HostSupports()
	switch {
	case options.ApparmorProfile != "" && options.ApparmorProfile != unconfined && !supported:
		return "", fmt.Errorf("apparmor_profile %q: this node has no AppArmor", options.ApparmorProfile)
	case !supported:
		return "", nil
	case options.ApparmorProfile != "":
		return options.ApparmorProfile, nil
	case options.Privileged:
		return "", nil
	}
	if err := apparmor.LoadDefaultProfile(defaultApparmorProfile); err != nil {
		return "", fmt.Errorf(`load AppArmor profile %s: %w: install apparmor_parser, or set apparmor_profile = "unconfined"`,
			defaultApparmorProfile, err)
	}
	return defaultApparmorProfile, nil
}

// maxSeccompProfile bounds a profile's file; docker's own has 13 KB.
const maxSeccompProfile = 1 << 20

// seccompProfile reads the profile that the task brings, nil for none. A path that does not begin with / is below the task's
// folder and leads nowhere else.
func seccompProfile(config *plugin.TaskConfig, options TaskConfig, rights []string) (*specs.LinuxSeccomp, error) {
	name := options.SeccompProfile
	if name == "" || name == unconfined {
		return nil, nil
	}
	file, err := openProfile(config, name)
	if err != nil {
		return nil, fmt.Errorf("seccomp_profile %q: %w", name, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxSeccompProfile+1))
	if err != nil {
		return nil, fmt.Errorf("seccomp_profile %q: %w", name, err)
	}
	if len(content) > maxSeccompProfile {
		return nil, fmt.Errorf("seccomp_profile %q: is larger than %d bytes", name, maxSeccompProfile)
	}
	profile, err := spec.ParseSeccomp(content, rights)
	if err != nil {
		return nil, fmt.Errorf("seccomp_profile %q: %w", name, err)
	}
	return profile, nil
}

func openProfile(config *plugin.TaskConfig, name string) (*os.File, error) {
	if filepath.IsAbs(name) {
		return os.Open(name)
	}
	root, err := os.OpenRoot(taskDir(config))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(name)
}

// hostFacts are what a specification depends on of this node.
func hostFacts(groups cgroups) (spec.Host, error) {
	host := groups.host()
	own, err := cap.Current()
	if err != nil {
		return spec.Host{}, fmt.Errorf("read own capabilities: %w", err)
	}
	host.Capabilities = own
	return host, nil
}
