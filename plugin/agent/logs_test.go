package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

// bound is how long a test waits for what must happen.
const bound = 20 * time.Second

func newLogs(t *testing.T) *Logs {
	t.Helper()
	logs, err := collectLogs(t.TempDir(), "task")
	must.NoError(t, err)
	t.Cleanup(func() { must.NoError(t, logs.Close()) })
	return logs
}

// say writes to a pipe as a task's process does: it opens, writes, and is gone.
func say(t *testing.T, pipe, text string) {
	t.Helper()
	file, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	must.NoError(t, err)
	_, err = file.WriteString(text)
	must.NoError(t, errors.Join(err, file.Close()))
}

func TestLogs_keepsWhatTasksWroteBeforeItIsClosed(t *testing.T) {
	t.Parallel()
	logs := newLogs(t)
	text := strings.Repeat("0123456789abcde\n", 16<<10) // four times what a pipe holds
	say(t, logs.StdoutPath, text)
	say(t, logs.StdoutPath, "after a restart\n")
	say(t, logs.StderrPath, "trouble\n")
	must.NoError(t, logs.Close())
	must.NoError(t, logs.Close(), must.Sprint("again"))
	out, err := os.ReadFile(filepath.Join(filepath.Dir(logs.StdoutPath), "task.stdout.0"))
	must.NoError(t, err)
	must.True(t, text+"after a restart\n" == string(out))
	tail, err := logs.Tail(10)
	must.NoError(t, err)
	must.Eq(t, "a restart\ntrouble\n", strings.TrimPrefix(tail, "\n"))
}

func TestLogs_Follow_seesThePastAndWhatComes(t *testing.T) {
	t.Parallel()
	logs := newLogs(t)
	say(t, logs.StdoutPath, "before\n")
	stdout, stderr := newWatched(), newWatched()
	followed := make(chan error, 1)
	go func() { followed <- logs.Follow(t.Context(), stdout, stderr) }()
	stdout.waitFor(t, "before\n")
	say(t, logs.StdoutPath, "after\n")
	stdout.waitFor(t, "before\nafter\n")
	say(t, logs.StderrPath, "trouble\n")
	stderr.waitFor(t, "trouble\n")
	say(t, logs.StdoutPath, "last\n")
	must.NoError(t, logs.Close())
	must.NoError(t, <-followed)
	test.Eq(t, "before\nafter\nlast\n", stdout.String())
}

func TestLogs_Follow_endsWithItsContextAndItsWriter(t *testing.T) {
	t.Parallel()
	logs := newLogs(t)
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() { followed <- logs.Follow(ctx, newWatched(), newWatched()) }()
	cancel()
	must.NoError(t, <-followed)

	say(t, logs.StdoutPath, "x")
	must.ErrorContains(t, logs.Follow(t.Context(), brokenWriter{}, newWatched()), "nobody reads")
}

func TestRotated_keepsTheNewestFiles(t *testing.T) {
	t.Parallel()
	log := newRotated(filepath.Join(t.TempDir(), "log"))
	log.files, log.fileSize = 3, 10
	must.NoError(t, log.open())
	for i := range 6 {
		log.write(fmt.Appendf(nil, "line %d\n", i)) // 7 bytes: one to a file
	}
	log.write(bytes.Repeat([]byte("x"), 25)) // more than a file takes is not cut
	must.NoError(t, log.close())
	var names []string
	entries, err := os.ReadDir(filepath.Dir(log.base))
	must.NoError(t, err)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	test.Eq(t, []string{"log.4", "log.5", "log.6"}, names)

	var tail bytes.Buffer
	must.NoError(t, log.tail(&tail, 30))
	test.Eq(t, "ne 5\n"+strings.Repeat("x", 25), tail.String())

	var all bytes.Buffer
	must.NoError(t, log.follow(t.Context(), &all))
	test.Eq(t, "line 4\nline 5\n"+strings.Repeat("x", 25), all.String())
}

func TestRotated_followsOverRotation(t *testing.T) {
	t.Parallel()
	log := newRotated(filepath.Join(t.TempDir(), "log"))
	log.fileSize = 100
	must.NoError(t, log.open())
	to := newWatched()
	followed := make(chan error, 1)
	go func() { followed <- log.follow(t.Context(), to) }()
	var want strings.Builder
	for i := range 60 {
		line := fmt.Sprintf("this is line %d\n", i)
		want.WriteString(line)
		log.write([]byte(line))
		if i%8 == 7 {
			// So that the follower never falls behind further than what is kept.
			to.waitFor(t, want.String())
		}
	}
	must.NoError(t, log.close())
	must.NoError(t, <-followed)
	test.Eq(t, want.String(), to.String())
}

// A log that cannot be written any more does not stop the task, and is not kept a secret.
func TestRotated_tellsOfALostLog(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	must.NoError(t, os.Mkdir(dir, 0o755))
	log := newRotated(filepath.Join(dir, "log"))
	log.fileSize = 10
	must.NoError(t, log.open())
	log.write([]byte("0123456789"))
	must.NoError(t, os.RemoveAll(dir))
	log.write([]byte("does not fit"))
	log.write([]byte("nor this"))
	must.ErrorIs(t, log.close(), os.ErrNotExist)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("nobody reads") }

// watched is a writer that a test can wait for.
type watched struct {
	lock    sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newWatched() *watched { return &watched{changed: make(chan struct{}, 1)} }

func (w *watched) Write(data []byte) (int, error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return w.text.Write(data)
}

func (w *watched) String() string {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.text.String()
}

func (w *watched) waitFor(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(bound)
	for w.String() != want {
		select {
		case <-w.changed:
		case <-timeout:
			t.Fatalf("waited for %q, have %q", want, w.String())
		}
	}
}
