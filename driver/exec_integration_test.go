package driver_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// stream is a writer that can be read while it is written to.
type stream struct {
	mu    sync.Mutex
	text  bytes.Buffer
	close bool
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close = true
	return nil
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func TestExecTaskStreaming(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.stdout.await(t, "ready")
	for _, c := range []struct {
		name, script, stdin, want string
		tty                       bool
		code                      int
	}{
		{name: "output and code", script: "echo out; echo err >&2; exit 3", want: "out\n", code: 3},
		{name: "input until its end", script: "cat; echo end", stdin: "one\ntwo\n", want: "one\ntwo\nend\n"},
		{name: "no terminal", script: "test -t 0 || echo none", want: "none\n"},
		{name: "a terminal", script: "test -t 0 && test -t 1 && echo terminal", want: "terminal\r\n", tty: true},
		{name: "a child in the background keeps the terminal", script: "sleep 1000 & echo left", want: "left\r\n", tty: true},
		{name: "a terminal's input ends", script: "cat; echo end", stdin: "line\n", want: "line\r\nline\r\nend\r\n", tty: true},
		{name: "killed", script: "kill -KILL $$", code: 137},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		var stdout, stderr stream
		result, err := r.driver.ExecTaskStreaming(ctx, task.ID, plugin.ExecOptions{
			Command: []string{"/bin/sh", "-c", c.script}, TTY: c.tty,
			Stdin: io.NopCloser(strings.NewReader(c.stdin)), Stdout: &stdout, Stderr: &stderr,
		})
		cancel()
		must.NoError(t, err, must.Sprint(c.name))
		test.Eq(t, c.code, result.ExitCode, test.Sprint(c.name))
		test.Eq(t, c.want, stdout.String(), test.Sprint(c.name))
	}
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestExecTaskStreaming_followsTheTerminalsSize(t *testing.T) {
	r := newRig(t)
	task := r.shell("echo ready; sleep 1000")
	r.start(task)
	task.stdout.await(t, "ready")
	sizes := make(chan plugin.TerminalSize, 1)
	sizes <- plugin.TerminalSize{Height: 33, Width: 77}
	input, feed := io.Pipe()
	var stdout stream
	ended := make(chan error, 1)
	go func() {
		_, err := r.driver.ExecTaskStreaming(t.Context(), task.ID, plugin.ExecOptions{
			Command: []string{"/bin/sh", "-c", "while :; do stty size; sleep 0.05; done"}, TTY: true,
			Stdin: input, Stdout: &stdout, Stderr: &stream{}, Resize: sizes,
		})
		ended <- err
	}()
	eventually(t, "the command sees the size", func() bool { return strings.Contains(stdout.String(), "33 77") })
	_, err := feed.Write([]byte{3}) // Ctrl-C
	must.NoError(t, err)
	must.NoError(t, <-ended)
	must.NoError(t, feed.Close())
	r.destroy(task)
	requireNothingLeft(r, task)
}

func TestExecTaskStreaming_tellsOfACommandThatCannotRun(t *testing.T) {
	r := newRig(t)
	task := r.shell("touch /tmp/plain; echo ready; sleep 1000")
	r.start(task)
	task.stdout.await(t, "ready")
	for _, c := range []struct {
		command string
		code    int
	}{
		{"/no/such/program", 127},
		{"no-such-program", 127},
		{"/tmp/plain", 126},
	} {
		for _, tty := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			var stdout, stderr stream
			result, err := r.driver.ExecTaskStreaming(ctx, task.ID, plugin.ExecOptions{
				Command: []string{c.command}, TTY: tty, Stdin: io.NopCloser(strings.NewReader("")), Stdout: &stdout, Stderr: &stderr,
			})
			cancel()
			must.NoError(t, err, must.Sprint(c.command))
			test.Eq(t, c.code, result.ExitCode, test.Sprint(c.command))
			said := stdout.String() + stderr.String()
			test.StrContains(t, said, c.command)
			test.StrContains(t, said, "cannot be executed")
		}
	}
	r.destroy(task)
	requireNothingLeft(r, task)
}
