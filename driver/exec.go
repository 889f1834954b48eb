package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

const (
	// maxExecOutput bounds each stream that ExecTask returns; the rest is thrown away.
	maxExecOutput = 64 << 10
	// maxExecError is how long an error of a streaming exec may be: agents pass it on in a websocket's close frame, which holds 123
	// bytes and begins with gRPC's own words, and a longer one does not reach the user at all.
	maxExecError = 123 - len("rpc error: code = Unknown desc = ")
	// defaultExecTimeout bounds an ExecTask that came without a timeout.
	defaultExecTimeout = time.Minute
)

// ExecTask runs a command in the task and returns what it printed.
func (d *Driver) ExecTask(
	ctx context.Context, id string, command []string, timeout time.Duration,
) (*plugin.ExecResult, error) {
	if timeout <= 0 {
		timeout = defaultExecTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var stdout, stderr boundedBuffer
	exit, err := d.exec(ctx, id, ExecRequest{Command: command, Stdout: &stdout, Stderr: &stderr})
	if err != nil {
		return nil, err
	}
	return &plugin.ExecResult{Stdout: stdout.Bytes(), Stderr: stderr.Bytes(), Exit: *exit}, nil
}

// Exit codes of a command that did not run at all, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// ExecTaskStreaming runs a command in the task that talks to a client until the command ends. A command that is not there is told as a
// shell does, by its output and its exit code.
func (d *Driver) ExecTaskStreaming(
	ctx context.Context, id string, options plugin.ExecOptions,
) (*plugin.ExitResult, error) {
	request := ExecRequest{
		Command: options.Command, TTY: options.TTY,
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Resize: options.Resize,
	}
	result, err := d.exec(ctx, id, request)
	switch {
	case errors.Is(err, ErrNoCommand):
		d.logger.Debug("command of exec cannot run", "task_id", id, "error", err)
		return refuseCommand(options, err)
	case err != nil:
		d.logger.Warn("exec failed", "task_id", id, "error", err)
		return nil, shortened(err, maxExecError)
	}
	return result, nil
}

func refuseCommand(options plugin.ExecOptions, cause error) (*plugin.ExitResult, error) {
	output, end := options.Stderr, "\n"
	if options.TTY {
		output, end = options.Stdout, "\r\n"
	}
	if _, err := fmt.Fprintf(output, "%s: %s%s", options.Command[0], ErrNoCommand, end); err != nil {
		return nil, fmt.Errorf("say that command cannot run: %w", err)
	}
	if strings.Contains(cause.Error(), "permission denied") {
		return &plugin.ExitResult{ExitCode: exitNotExecutable}, nil
	}
	return &plugin.ExitResult{ExitCode: exitNotFound}, nil
}

// shortened is an error with no more than the first bytes of the text.
func shortened(err error, limit int) error {
	text := err.Error()
	if len(text) <= limit {
		return err
	}
	const more = "..."
	return errors.New(strings.ToValidUTF8(text[:limit-len(more)], "") + more)
}

func (d *Driver) exec(ctx context.Context, id string, request ExecRequest) (*plugin.ExitResult, error) {
	task, ok := d.tasks.get(id)
	if !ok {
		return nil, plugin.ErrTaskNotFound
	}
	if len(request.Command) == 0 {
		return nil, errors.New("exec in task: no command given")
	}
	if task.hasEnded() {
		return nil, errors.New("exec in task: it has ended")
	}
	engine, _, err := d.current()
	if err != nil {
		return nil, err
	}
	exit, err := engine.Exec(ctx, task.state.ContainerID, request)
	if err != nil {
		return nil, fmt.Errorf("exec in task: %w", err)
	}
	result := &plugin.ExitResult{ExitCode: exit.Code}
	if n := exit.Code - 128; n > 0 && n <= maxSignal {
		result.Signal = n
	}
	return result, nil
}

// boundedBuffer keeps the first maxExecOutput bytes. It takes all others too, so that the writer does not fail or block.
type boundedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	room := maxExecOutput - b.buffer.Len()
	b.buffer.Write(p[:min(len(p), room)])
	return len(p), nil
}

func (b *boundedBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buffer.Bytes())
}
