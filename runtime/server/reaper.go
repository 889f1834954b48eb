package server

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// reapInterval is how often ended orphans are looked for. What this program started itself is waited for at once, so that whatever
// is found ended twice in a row is an orphan.
const reapInterval = 5 * time.Second

// reap takes away ended processes that nobody else waits for: as the first process of a container this program is given the
// orphans of the workers and of whatever the flows' tools start.
func reap(ctx context.Context, parent int, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	seen := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := map[int]bool{}
		for _, pid := range endedChildren(parent) {
			if !seen[pid] {
				now[pid] = true
				continue
			}
			var status syscall.WaitStatus
			// An error means that somebody waited for it after all.
			_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		}
		seen = now
	}
}

// endedChildren are the ended processes whose parent is this one.
func endedChildren(parent int) []int {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		// The name in parentheses may hold anything; state and parent follow it.
		_, rest, found := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
		fields := strings.Fields(rest)
		if !found || len(fields) < 2 || fields[0] != "Z" || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
