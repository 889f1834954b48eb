package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runRecord is the file in the data folder that names the run folder of the dev that uses it. It outlives a dev that was killed.
const runRecord = "run"

// recordRun notes the run folder for the next dev, until this one ends in order.
func (d *devCluster) recordRun() error {
	path := filepath.Join(d.options.dataDir, runRecord)
	if err := os.WriteFile(path, []byte(d.runDir), 0o600); err != nil {
		return fmt.Errorf("note the run folder: %w", err)
	}
	d.undo(func(context.Context) error { return os.Remove(path) })
	return nil
}

// sweep takes down what a dev left that was killed: its containers, its containerd, its mounts and its run folder. All of it is known by the
// run folder's name, which no other process has.
func (d *devCluster) sweep() error {
	data, err := os.ReadFile(filepath.Join(d.options.dataDir, runRecord))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last run folder: %w", err)
	}
	dir := string(data)
	if filepath.Dir(dir) != "/run" || !strings.HasPrefix(filepath.Base(dir), runPrefix) {
		return fmt.Errorf("the file %s names %q, which is no run folder of dev: remove the file", filepath.Join(d.options.dataDir, runRecord), dir)
	}
	d.progress.did("an earlier dev was killed: taking down what it left in %s", dir)
	if err := endAll(processesOf(dir)); err != nil {
		return err
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// processesOf are the processes whose command line names the folder (containerd and its shims), each after its children, so that a
// container ends before its shim.
func processesOf(dir string) []int {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(line), dir+"/") {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		pids = append(append(pids, children(pid)...), pid)
	}
	return pids
}

// children are the direct children of a process, of all its threads.
func children(pid int) []int {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// endAll kills processes and waits until they are gone.
func endAll(pids []int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	deadline := time.Now().Add(containerdStop)
	for _, pid := range pids {
		for !ended(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("process %d does not end", pid)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// ended says whether a process is gone, or waits only for its parent to look.
func ended(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	return len(fields) > 0 && fields[0] == "Z"
}
