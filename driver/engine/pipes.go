package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// pipesRoot holds the pipes of commands that run in containers, each process's in a folder of its own.
const pipesRoot = "/run/nomad-promptflow/exec"

// pipesDir is this process's folder. What processes left that were killed while commands ran is removed first.
func pipesDir() string {
	sweepPipes.Do(func() { removeDeadPipes(pipesRoot) })
	return filepath.Join(pipesRoot, strconv.Itoa(os.Getpid()))
}

var sweepPipes sync.Once

// removeDeadPipes removes the folders of processes that are no more. Nobody else holds what is in them but the shims, which do
// not need the names.
func removeDeadPipes(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid <= 0 {
			continue
		}
		if unix.Kill(pid, 0) == unix.ESRCH {
			_ = os.RemoveAll(filepath.Join(root, entry.Name()))
		}
	}
}
