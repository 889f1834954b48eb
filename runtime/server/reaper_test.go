package server

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"
)

// Not parallel: it makes the test process the parent of orphans.
func TestReap_takes_orphans_and_leaves_waited_children(t *testing.T) {
	must.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	defer func() { must.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); reap(ctx, os.Getpid(), 500*time.Millisecond) }()
	defer func() { cancel(); <-done }()

	// The shell leaves an orphan behind, which ends by itself.
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!").Output()
	must.NoError(t, err)
	orphan, err := strconv.Atoi(strings.TrimSpace(string(out)))
	must.NoError(t, err)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if _, err := os.Stat("/proc/" + strconv.Itoa(orphan)); os.IsNotExist(err) {
			break
		}
		must.True(t, time.Now().Before(deadline), must.Sprint("the orphan is still there"))
		time.Sleep(5 * time.Millisecond)
	}

	for range 20 {
		must.NoError(t, exec.CommandContext(t.Context(), "/bin/true").Run(), must.Sprint("a child that is waited for"))
	}
	test.False(t, slices.Contains(endedChildren(os.Getpid()), orphan))
}
