package driver

import (
	"fmt"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// taskDevices are those of the agent's device plugins and of the job, or all of the node for a privileged task.
func taskDevices(config *plugin.TaskConfig, options TaskConfig) ([]spec.Device, error) {
	asked := slices.Clone(config.Devices)
	for _, device := range options.Devices {
		asked = append(asked, plugin.Device{
			TaskPath: device.ContainerPath, HostPath: device.HostPath, CgroupPermissions: device.CgroupPermissions,
		})
	}
	devices, err := lookupDevices(asked)
	if err != nil || !options.Privileged {
		return devices, err
	}
	all, err := oci.HostDevices()
	if err != nil {
		return nil, fmt.Errorf("list devices of the node: %w", err)
	}
	for _, device := range all {
		devices = append(devices, spec.Device{
			Path: device.Path, Type: device.Type, Major: device.Major, Minor: device.Minor,
			Mode: *device.FileMode, UID: *device.UID, GID: *device.GID, Permissions: "rwm",
		})
	}
	return devices, nil
}

// lookupDevices reads the numbers of the devices that the agent gives to a task.
func lookupDevices(devices []plugin.Device) ([]spec.Device, error) {
	var found []spec.Device
	for _, device := range devices {
		d, err := lookupDevice(device)
		if err != nil {
			return nil, fmt.Errorf("give device %s: %w", device.HostPath, err)
		}
		found = append(found, d)
	}
	return found, nil
}

func lookupDevice(device plugin.Device) (spec.Device, error) {
	var stat unix.Stat_t
	if err := unix.Stat(device.HostPath, &stat); err != nil {
		return spec.Device{}, err
	}
	var kind string
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return spec.Device{}, fmt.Errorf("not a device")
	}
	target, permissions := device.TaskPath, device.CgroupPermissions
	if target == "" {
		target = device.HostPath
	}
	if permissions == "" {
		permissions = "rwm"
	}
	return spec.Device{
		Path: target, Type: kind,
		Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev)),
		Mode: os.FileMode(stat.Mode & 0o777), UID: stat.Uid, GID: stat.Gid,
		Permissions: permissions,
	}, nil
}
