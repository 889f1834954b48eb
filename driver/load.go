package driver

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// openArchive opens an image archive of a task. The path is as the task sees it, /alloc/… or /local/… or the same without the
// first slash; any other is below local/, as with docker's driver. Tasks write in these folders, so no link is followed on
// the way down, and what is not a plain file is refused before it is opened.
func openArchive(config *plugin.TaskConfig, name string) (*os.File, error) {
	elements, err := archivePath(config, name)
	if err != nil {
		return nil, err
	}
	fd, err := openBeneath(config.AllocDir, elements...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w: load must be a file below the task's local folder or /alloc, and no link", name, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: not a plain file", name)
	}
	// The descriptor names the very file that was looked at.
	file, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return file, nil
}

// archivePath is where an archive is below the allocation's folder, element by element.
func archivePath(config *plugin.TaskConfig, name string) ([]string, error) {
	elements := strings.Split(strings.TrimPrefix(path.Clean("/"+name), "/"), "/")
	if slices.Contains(strings.Split(name, "/"), "..") || elements[0] == "" {
		return nil, fmt.Errorf("load %q: must be a file below the task's local folder or /alloc", name)
	}
	switch elements[0] {
	case "alloc":
		return elements, nil
	case "local":
		return append([]string{config.Name}, elements...), nil
	}
	if path.IsAbs(name) {
		return nil, fmt.Errorf("load %q: must be a file below the task's local folder or /alloc", name)
	}
	return append([]string{config.Name, "local"}, elements...), nil
}
