package driver_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// exec runs a shell command in the task as `nomad alloc exec` does. With a terminal its size is told twice, and its input stays
// open.
func (r *wireRig) exec(task *wireTask, command string, tty bool, stdin string) (result *plugin.ExitResult, stdout, stderr string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), bound)
	defer cancel()
	sizes := make(chan plugin.TerminalSize, 2)
	input := io.NopCloser(strings.NewReader(stdin))
	if tty {
		sizes <- plugin.TerminalSize{Height: 50, Width: 40}
		sizes <- plugin.TerminalSize{Height: 100, Width: 100}
		open, end := io.Pipe()
		defer end.Close()
		input = io.NopCloser(io.MultiReader(strings.NewReader(stdin), open))
	}
	var out, errs stream
	result, err := r.plugin.ExecTaskStreaming(ctx, task.ID, plugin.ExecOptions{
		Command: []string{"/bin/sh", "-c", command}, TTY: tty, Stdin: input, Stdout: &out, Stderr: &errs, Resize: sizes,
	})
	must.NoError(r.t, err)
	return result, out.String(), errs.String()
}

func TestConformance_ExecTaskStreaming(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	for _, c := range []struct {
		name, command, stdin string
		tty                  bool
		stdout, stderr       string // patterns
		code                 int
	}{
		{name: "notty: basic", command: "echo hello stdout; echo hello stderr >&2; exit 43",
			stdout: "hello stdout\n", stderr: "hello stderr\n", code: 43},
		{name: "notty: streaming", command: "for n in 1 2 3; do echo $n; sleep 1; done", stdout: "1\n2\n3\n"},
		{name: "notty: stty check", command: "stty size",
			stderr: "stty: .?standard input.?(: Inappropriate ioctl for device)?\n", code: 1},
		{name: "notty: stdin passing", command: "echo hello from command; head -n1", stdin: "hello from stdin\n",
			stdout: "hello from command\nhello from stdin\n"},
		{name: "tty: basic", tty: true, command: "echo hello stdout; echo hello stderr >&2; exit 43",
			stdout: "hello stdout\r\nhello stderr\r\n", code: 43},
		{name: "tty: streaming", tty: true, command: "for n in 1 2 3; do echo $n; sleep 1; done", stdout: "1\r\n2\r\n3\r\n"},
		{name: "tty: stty check", tty: true, command: "sleep 1; stty size", stdout: "100 100\r\n"},
		// Once for what the terminal echoes, once for what the command prints.
		{name: "tty: stdin passing", tty: true, command: "head -n1", stdin: "hello from stdin\n",
			stdout: "hello from stdin\r\nhello from stdin\r\n"},
		// Only the lead process is waited for.
		{name: "tty: children processes", tty: true,
			command: "(( sleep 3; echo from background ) & ); echo from main; exec sleep 1", stdout: "from main\r\n"},
		{name: "tty: children processes that outlive the terminal", tty: true,
			command: "( trap '' HUP; sleep 30; echo from background ) & echo from main; exec sleep 0.2", stdout: "from main\r\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, stdout, stderr := r.in(t).exec(task, c.command, c.tty, c.stdin)
			test.Eq(t, c.code, result.ExitCode)
			test.RegexMatch(t, regexp.MustCompile("^"+c.stdout+"$"), stdout)
			test.RegexMatch(t, regexp.MustCompile("^"+c.stderr+"$"), stderr)
		})
	}
	t.Run("isolation", func(t *testing.T) {
		part := r.in(t)
		_, stdout, _ := part.exec(task, `FILE=$(mktemp); echo "$FILE"; echo "hello from the other side" >> "$FILE"`, false, "")
		file := strings.TrimSpace(stdout)
		_, err := os.Stat(file)
		test.ErrorIs(t, err, os.ErrNotExist, test.Sprint("the node does not see it"))
		_, stdout, _ = part.exec(task, "cat "+file, false, "")
		test.Eq(t, "hello from the other side\n", stdout)

		_, own, _ := part.exec(task, "cat /proc/1/cgroup", false, "")
		_, stdout, _ = part.exec(task, "cat /proc/self/cgroup", false, "")
		test.Eq(t, own, stdout, test.Sprint("a command is counted with its task"))
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
			test.StrContains(t, stdout, ":freezer:/nomad-promptflow/")
		}
	})
	r.destroy(task)
	r.requireNothingLeft()
}

// An exec that has nothing to say stays open: the client's heartbeats are no input.
func TestExecTaskStreaming_heartbeat(t *testing.T) {
	t.Parallel()
	r := newWireRig(t, "")
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	// The client sends a heartbeat every ten seconds.
	result, stdout, _ := r.exec(task, "sleep 11; head -c 1 | wc -c", false, "")
	test.Eq(t, 0, result.ExitCode)
	test.Eq(t, "0\n", stdout)
	r.destroy(task)
}

func TestExecTask_overTheWire(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	result, err := r.plugin.ExecTask(t.Context(), task.ID, []string{"/bin/sh", "-c", "yes | head -c 1m; echo err >&2; exit 4"}, bound)
	must.NoError(t, err)
	test.Eq(t, 64<<10, len(result.Stdout))
	test.Eq(t, "err\n", string(result.Stderr))
	test.Eq(t, 4, result.Exit.ExitCode)
	began := time.Now()
	_, err = r.plugin.ExecTask(t.Context(), task.ID, []string{"/bin/sleep", "1000"}, 2*time.Second)
	test.ErrorContains(t, err, "command was killed")
	test.Less(t, 10*time.Second, time.Since(began))
	_, err = r.plugin.ExecTask(t.Context(), "unknown", []string{"true"}, bound)
	test.ErrorIs(t, err, plugin.ErrTaskNotFound)
	r.destroy(task)
	r.requireNothingLeft()
}

// A client that hangs up takes its command with it.
func TestExecTaskStreaming_clientLeaves(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	ctx, cancel := context.WithCancel(t.Context())
	var out stream
	ended := make(chan error, 1)
	go func() {
		_, err := r.plugin.ExecTaskStreaming(ctx, task.ID, plugin.ExecOptions{
			Command: []string{"/bin/sh", "-c", "echo begun; exec sleep 4244"}, Stdout: &out, Stderr: &stream{},
		})
		ended <- err
	}()
	eventually(t, "the command runs", func() bool { return strings.Contains(out.String(), "begun") })
	cancel()
	test.ErrorIs(t, <-ended, context.Canceled)
	eventually(t, "the command ends", func() bool { return len(processesWith("4244")) == 0 })
	r.destroy(task)
}

// Containerd goes away and comes back while a command runs: the command does not notice, nor does its client.
func TestExecTaskStreaming_throughARestartOfContainerd(t *testing.T) {
	r := newWireRig(t, "")
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.awaitLog(t, "ready")
	var out stream
	type answer struct {
		result *plugin.ExitResult
		err    error
	}
	ended := make(chan answer, 1)
	input, feed := io.Pipe()
	go func() {
		result, err := r.plugin.ExecTaskStreaming(t.Context(), task.ID, plugin.ExecOptions{
			Command: []string{"/bin/sh", "-c", "echo begun; cat; echo input over; exit 3"}, Stdin: input, Stdout: &out, Stderr: &stream{},
		})
		ended <- answer{result, err}
	}()
	eventually(t, "the command runs", func() bool { return strings.Contains(out.String(), "begun") })
	r.daemon.Kill()
	_, err := fmt.Fprintln(feed, "while it is away")
	must.NoError(t, err)
	eventually(t, "input and output go on", func() bool { return strings.Contains(out.String(), "while it is away") })
	must.NoError(t, feed.Close())
	r.daemon.Start()
	got := <-ended
	must.NoError(t, got.err)
	test.Eq(t, 3, got.result.ExitCode)
	test.StrContains(t, out.String(), "input over\n")
	r.destroy(task)
	r.requireNothingLeft()
}
