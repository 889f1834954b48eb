package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

const (
	// maxExecOutput bounds each stream that ExecTask returns; the rest is thrown away.
	maxExecOutput = 64 << 10
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

// ExecTaskStreaming runs a command in the task that talks to a client until the command ends.
func (d *Driver) ExecTaskStreaming(
	ctx context.Context, id string, options plugin.ExecOptions,
) (*plugin.ExitResult, error) {
	request := ExecRequest{
		Command: options.Command, TTY: options.TTY,
		Stdin: options.Stdin, Stdout: options.Stdout, Stderr: options.Stderr, Resize: options.Resize,
	}
	return d.exec(ctx, id, request)
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
		return nil, fmt.Errorf("exec in task %s: it has ended", id)
	}
	engine, _, err := d.current()
	if err != nil {
		return nil, err
	}
	exit, err := engine.Exec(ctx, task.state.ContainerID, request)
	if err != nil {
		return nil, fmt.Errorf("exec %q in task %s: %w", request.Command[0], id, err)
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
