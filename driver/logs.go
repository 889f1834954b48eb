package driver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// logTarget is where a stream of a container goes: a FIFO of the agent's log collector, held open until the container's
// shim has opened it too. Since it is open for reading here, the shim never blocks on a collector that is late.
type logTarget struct{ fifo *os.File }

// openTaskLogs opens the targets of a task's streams. Without log collection there are none, though the agent names them.
func openTaskLogs(config *plugin.TaskConfig, pluginConfig PluginConfig) (out, errs logTarget, err error) {
	if pluginConfig.DisableLogCollection {
		return logTarget{}, logTarget{}, nil
	}
	return openLogs(config.AllocDir, config.StdoutPath, config.StderrPath)
}

// openLogs opens the targets of both streams.
func openLogs(allocDir, stdout, stderr string) (out, errs logTarget, err error) {
	if out, err = openLog(allocDir, stdout); err != nil {
		return logTarget{}, logTarget{}, err
	}
	if errs, err = openLog(allocDir, stderr); err != nil {
		return logTarget{}, logTarget{}, errors.Join(err, out.Close())
	}
	return out, errs, nil
}

// openLog opens the FIFO at path, which must be in the allocation's log folder. A task may write in the folders above it, so
// no link is followed on the way, and what is not a FIFO is refused before it is opened.
func openLog(allocDir, path string) (logTarget, error) {
	if path == "" || path == os.DevNull {
		return logTarget{}, nil
	}
	logs := filepath.Join(allocDir, "alloc", "logs")
	name, err := filepath.Rel(logs, path)
	if err != nil || name == "." || name == ".." || strings.ContainsRune(name, filepath.Separator) {
		return logTarget{}, fmt.Errorf("open log %s: not in the allocation's log folder %s", path, logs)
	}
	fd, err := openBeneath(allocDir, "alloc", "logs", name)
	if err != nil {
		return logTarget{}, fmt.Errorf("open log %s: %w", path, err)
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return logTarget{}, fmt.Errorf("open log %s: %w", path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		return logTarget{}, fmt.Errorf("open log %s: not a FIFO", path)
	}
	// The descriptor names the very file that was looked at.
	fifo, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return logTarget{}, fmt.Errorf("open log %s: %w", path, err)
	}
	return logTarget{fifo: fifo}, nil
}

// openBeneath goes down from dir without following a link, and returns a descriptor that names the last element and does
// not open it.
func openBeneath(dir string, elements ...string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for i, name := range elements {
		flags := unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if i < len(elements)-1 {
			flags |= unix.O_DIRECTORY
		}
		next, err := unix.Openat(fd, name, flags, 0)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}

// Path is what the shim opens: this process's descriptor, so that nobody can put another file in the FIFO's place in
// between. It is good until Close.
func (l logTarget) Path() string {
	if l.fifo == nil {
		return ""
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.fifo.Fd())
}

// Close lets go of the FIFO; the shim's own ends stay.
func (l logTarget) Close() error {
	if l.fifo == nil {
		return nil
	}
	return l.fifo.Close()
}
