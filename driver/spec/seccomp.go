package spec

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seccompFile is a profile in docker's form, which OCI's is a part of. Docker's has architectures that imply others, and rules
// that hold only for some processors, rights or kernels.
type seccompFile struct {
	specs.LinuxSeccomp
	ArchMap []struct {
		Architecture     specs.Arch   `json:"architecture"`
		SubArchitectures []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []struct {
		specs.LinuxSyscall
		Name     string           `json:"name"` // of old profiles
		Includes seccompCondition `json:"includes"`
		Excludes seccompCondition `json:"excludes"`
	} `json:"syscalls"`
}

// seccompCondition holds when everything in it does; an empty one always does.
type seccompCondition struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// seccompMachine is what conditions are about.
type seccompMachine struct {
	rights       []string
	arch         string
	major, minor int
}

// ParseSeccomp reads a seccomp profile in docker's or OCI's form for a process with the given rights on this machine.
func ParseSeccomp(content []byte, rights []string) (*specs.LinuxSeccomp, error) {
	machine := seccompMachine{rights: rights, arch: runtime.GOARCH}
	var err error
	if machine.major, machine.minor, err = kernelVersion(); err != nil {
		return nil, err
	}
	return parseSeccomp(content, machine)
}

func parseSeccomp(content []byte, machine seccompMachine) (*specs.LinuxSeccomp, error) {
	var file seccompFile
	if err := json.Unmarshal(content, &file); err != nil {
		return nil, fmt.Errorf("not a seccomp profile: %w", err)
	}
	if file.DefaultAction == "" {
		return nil, errors.New("not a seccomp profile: it has no defaultAction")
	}
	profile := file.LinuxSeccomp
	profile.Syscalls = nil
	profile.Architectures = slices.Concat(file.Architectures, machine.architectures(file))
	for i, rule := range file.Syscalls {
		applies, err := rule.Includes.applies(machine)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if !applies || rule.Excludes.names(machine) {
			continue
		}
		call := rule.LinuxSyscall
		if rule.Name != "" {
			call.Names = append(call.Names, rule.Name)
		}
		if len(call.Names) == 0 || call.Action == "" {
			return nil, fmt.Errorf("syscalls[%d]: needs names and an action", i)
		}
		profile.Syscalls = append(profile.Syscalls, call)
	}
	return &profile, nil
}

// seccompArchs are seccomp's names of processors, by Go's.
var seccompArchs = map[string]specs.Arch{
	"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64, "arm": specs.ArchARM, "386": specs.ArchX86,
	"ppc64le": specs.ArchPPC64LE, "s390x": specs.ArchS390X, "riscv64": specs.ArchRISCV64,
}

// architectures are those that the profile's map has for this machine.
func (m seccompMachine) architectures(file seccompFile) []specs.Arch {
	for _, entry := range file.ArchMap {
		if entry.Architecture == seccompArchs[m.arch] {
			return append([]specs.Arch{entry.Architecture}, entry.SubArchitectures...)
		}
	}
	return nil
}

func (c seccompCondition) applies(m seccompMachine) (bool, error) {
	if len(c.Arches) > 0 && !slices.Contains(c.Arches, m.arch) {
		return false, nil
	}
	for _, capability := range c.Caps {
		if !slices.Contains(m.rights, capabilityName(capability)) {
			return false, nil
		}
	}
	if c.MinKernel == "" {
		return true, nil
	}
	major, minor, err := parseKernel(c.MinKernel)
	if err != nil {
		return false, err
	}
	return m.major > major || m.major == major && m.minor >= minor, nil
}

// names says whether anything in the condition holds, as it excludes a rule.
func (c seccompCondition) names(m seccompMachine) bool {
	return slices.Contains(c.Arches, m.arch) || slices.ContainsFunc(c.Caps, func(capability string) bool {
		return slices.Contains(m.rights, capabilityName(capability))
	})
}

func kernelVersion() (major, minor int, err error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return 0, 0, fmt.Errorf("read kernel version: %w", err)
	}
	return parseKernel(unix.ByteSliceToString(name.Release[:]))
}

// parseKernel reads the first two numbers of a version.
func parseKernel(text string) (major, minor int, err error) {
	parts := strings.FieldsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return 0, 0, fmt.Errorf("minKernel %q: not a kernel version", text)
	}
	major, errMajor := strconv.Atoi(parts[0])
	minor, errMinor := strconv.Atoi(parts[1])
	if errMajor != nil || errMinor != nil {
		return 0, 0, fmt.Errorf("minKernel %q: not a kernel version", text)
	}
	return major, minor, nil
}
