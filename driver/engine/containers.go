package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// Create makes the container's snapshot, record and process. What a start of the same container that was cut off left is in
// the way of the first attempt, and gone with its failure.
func (e *Engine) Create(ctx context.Context, request driver.ContainerRequest) (pid int, err error) {
	for range 2 {
		pid, err = e.create(ctx, request)
		if !errdefs.IsAlreadyExists(err) {
			break
		}
	}
	return pid, err
}

func (e *Engine) create(ctx context.Context, request driver.ContainerRequest) (pid int, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, e.discard(ctx, request.ID))
		}
	}()
	if request.Spec.Linux.Seccomp == nil && !request.SeccompUnconfined {
		request.Spec.Linux.Seccomp = seccomp.DefaultProfile(request.Spec)
	}
	container, err := e.newContainer(ctx, request)
	if err != nil {
		return 0, e.explainCreate(ctx, err)
	}
	task, err := container.NewTask(ctx, shimOpensLogs(request))
	if err != nil {
		return 0, e.explainCreate(ctx, err)
	}
	return int(task.Pid()), nil
}

// newContainer makes the snapshot and the record.
func (e *Engine) newContainer(ctx context.Context, request driver.ContainerRequest) (containerd.Container, error) {
	runtime := request.Runtime
	if runtime == "" {
		runtime = e.config.Runtime
	}
	ctx, release, err := e.lease(ctx, request)
	if err != nil {
		return nil, err
	}
	defer release()
	return e.client.NewContainer(ctx, request.ID,
		containerd.WithContainerLabels(request.Labels),
		containerd.WithAdditionalContainerLabels(request.Marks),
		containerd.WithRuntime(runtime, nil),
		e.withSnapshot(request),
		containerd.WithSpec(request.Spec),
	)
}

// explainCreate leaves the driver's "no such container" to containers: here what is missing is something else, whatever a
// runtime calls it.
func (e *Engine) explainCreate(ctx context.Context, err error) error {
	explained := explainStart(err)
	switch {
	case isDiskFull(err):
		return e.explainDiskFull(ctx, err)
	case errors.Is(explained, driver.ErrNoContainer):
		return err
	}
	return explained
}

func (e *Engine) discard(ctx context.Context, id string) error {
	ctx, cancel := e.cleanup(ctx)
	defer cancel()
	if err := e.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove half-made container: %w", err)
	}
	return nil
}

// withSnapshot gives the container a writable file system over the image's. It is named like the container, so that it
// is found again without a record.
func (e *Engine) withSnapshot(request driver.ContainerRequest) containerd.NewContainerOpts {
	return func(ctx context.Context, client *containerd.Client, record *containers.Container) error {
		record.Image = request.Image.Name
		record.Snapshotter = e.config.Snapshotter
		record.SnapshotKey = request.ID
		_, err := client.SnapshotService(e.config.Snapshotter).Prepare(ctx, request.ID, request.Image.RootFS,
			snapshots.WithLabels(maps.Clone(request.Marks)))
		return err
	}
}

// shimOpensLogs hands the shim the paths themselves; this process copies nothing.
func shimOpensLogs(request driver.ContainerRequest) cio.Creator {
	stdout, stderr := request.Stdout, request.Stderr
	terminal := request.Spec.Process.Terminal
	switch {
	case terminal:
		// A terminal has one stream.
		stderr = ""
	case stdout != "" || stderr != "":
		// A shim discards both or opens both.
		stdout, stderr = orNull(stdout), orNull(stderr)
	}
	return func(string) (cio.IO, error) {
		return shimIO{config: cio.Config{Terminal: terminal, Stdout: stdout, Stderr: stderr}}, nil
	}
}

func orNull(path string) string {
	if path == "" {
		return os.DevNull
	}
	return path
}

// shimIO is IO in which the client has no part.
type shimIO struct{ config cio.Config }

func (s shimIO) Config() cio.Config { return s.config }
func (s shimIO) Cancel()            {}
func (s shimIO) Wait()              {}
func (s shimIO) Close() error       { return nil }

// Start lets a created container's process run.
func (e *Engine) Start(ctx context.Context, id string) error {
	_, err := e.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id})
	return explainStart(err)
}

// isBadCommand recognizes a runtime's complaint about the command itself: containerd passes on no more than its text.
func isBadCommand(err error) bool {
	return strings.Contains(err.Error(), "exec: \"") || strings.Contains(err.Error(), "executable file not found")
}

// explainStart names the usual mistake behind a runtime's long message.
func explainStart(err error) error {
	if err != nil && isBadCommand(err) {
		return fmt.Errorf("%w: check entrypoint, command and args: %w", driver.ErrNoCommand, err)
	}
	return explain(err)
}

// Inspect describes a container.
func (e *Engine) Inspect(ctx context.Context, id string) (*driver.Container, error) {
	record, err := e.client.ContainerService().Get(e.namespaced(ctx), id)
	if err != nil {
		return nil, fmt.Errorf("inspect container %s: %w", id, explain(err))
	}
	found := &driver.Container{Labels: record.Labels}
	response, err := e.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err = explain(err); errors.Is(err, driver.ErrNoContainer) {
		return found, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect process of container %s: %w", id, err)
	}
	process := response.Process
	found.PID = int(process.Pid)
	switch process.Status {
	case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
		found.Running = true
	case tasktypes.Status_STOPPED:
		found.Exit = &driver.Exit{Code: int(process.ExitStatus), At: process.ExitedAt.AsTime()}
	}
	return found, nil
}

// Wait asks the shim, which answers when the process has ended.
func (e *Engine) Wait(ctx context.Context, id string) (driver.Exit, error) {
	response, err := e.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err != nil {
		return driver.Exit{}, fmt.Errorf("wait for container %s: %w", id, explain(err))
	}
	return driver.Exit{Code: int(response.ExitStatus), At: response.ExitedAt.AsTime()}, nil
}

// Kill sends a signal. A process that has ended is "not found" to the daemon.
func (e *Engine) Kill(ctx context.Context, id string, signal syscall.Signal) error {
	_, err := e.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(signal)})
	if err := ignoreAbsent(err); err != nil {
		return fmt.Errorf("signal container %s: %w", id, err)
	}
	return nil
}

// Stop kills the process and deletes it from its shim.
func (e *Engine) Stop(ctx context.Context, id string) error {
	service := e.client.TaskService()
	if err := e.Kill(ctx, id, syscall.SIGKILL); err != nil {
		return err
	}
	if _, err := e.Wait(ctx, id); err != nil && !errors.Is(err, driver.ErrNoContainer) {
		return err
	}
	_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err := ignoreAbsent(err); err != nil {
		return fmt.Errorf("delete process of container %s: %w", id, err)
	}
	return nil
}

// Remove stops the container and deletes its record, its snapshot and its lease, each also when the others are missing.
func (e *Engine) Remove(ctx context.Context, id string) error {
	ctx = e.namespaced(ctx)
	if err := e.Stop(ctx, id); err != nil {
		return err
	}
	if err := ignoreAbsent(e.client.ContainerService().Delete(ctx, id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if err := ignoreAbsent(e.client.SnapshotService(e.config.Snapshotter).Remove(ctx, id)); err != nil {
		return fmt.Errorf("delete snapshot of container %s: %w", id, err)
	}
	if err := ignoreAbsent(e.client.LeasesService().Delete(ctx, leases.Lease{ID: id})); err != nil {
		return fmt.Errorf("delete lease of container %s: %w", id, err)
	}
	return nil
}

// containerSpec reads back the specification that a container was made with.
func (e *Engine) containerSpec(ctx context.Context, container containerd.Container) (*specs.Spec, error) {
	description, err := container.Spec(ctx)
	if err != nil {
		return nil, fmt.Errorf("read container specification: %w", explain(err))
	}
	if description.Process == nil {
		return nil, errors.New("read container specification: it has no process")
	}
	return description, nil
}
