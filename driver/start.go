package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// StartTask makes a container for the task and starts it. When the agent sends a task again because it lost the answer, the
// container of the first time is taken over if it runs and replaced if it does not.
func (d *Driver) StartTask(ctx context.Context, config *plugin.TaskConfig) (*plugin.StartedTask, error) {
	engine, pluginConfig, err := d.current()
	if err != nil {
		return nil, err
	}
	options, err := decodeTaskConfig(config.DriverConfig)
	if err != nil {
		return nil, err
	}
	d.leftovers.forget(config.ID)
	if adopted, err := d.adopt(ctx, engine, config); adopted != nil || err != nil {
		return d.started(adopted, err)
	}
	image, err := d.ensureImage(ctx, engine, pluginConfig, config, options)
	if err != nil {
		return nil, retryable(err)
	}
	task, err := d.launch(ctx, engine, config, options, image)
	return d.started(task, err)
}

// started answers for a task that runs.
func (d *Driver) started(task *task, err error) (*plugin.StartedTask, error) {
	if err != nil {
		return nil, retryable(err)
	}
	encoded, err := task.state.encode()
	if err != nil {
		return nil, err
	}
	if kept, isNew := d.tasks.add(task); isNew {
		d.watch(kept)
	}
	return &plugin.StartedTask{DriverState: encoded}, nil
}

// retryable marks an error that the task's restart policy should get over; all others fail the task for good on this node.
func retryable(err error) error {
	for _, passing := range []error{ErrUnavailable, ErrTransient, context.DeadlineExceeded, errNotConfigured} {
		if errors.Is(err, passing) {
			return plugin.Recoverable(err)
		}
	}
	return err
}

// adopt returns the running container of the task, if there is one, and removes one that does not run.
func (d *Driver) adopt(ctx context.Context, engine Engine, config *plugin.TaskConfig) (*task, error) {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	id := containerID(config.ID)
	container, err := engine.Inspect(ctx, id)
	switch {
	case errors.Is(err, ErrNoContainer):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for container of task: %w", err)
	}
	if container.Running {
		if adopted, err := adoptContainer(config, container); err == nil {
			d.logger.Info("took over running container", "task_id", config.ID, "container_id", id)
			return adopted, nil
		}
	}
	if err := engine.Remove(ctx, id); err != nil {
		return nil, fmt.Errorf("replace container of task: %w", err)
	}
	return nil, nil
}

func adoptContainer(config *plugin.TaskConfig, container *Container) (*task, error) {
	encoded, err := stateOfLabels(container.Labels)
	if err != nil {
		return nil, err
	}
	state, err := decodeState(encoded)
	if err != nil {
		return nil, err
	}
	return newTask(config, state), nil
}

// launch makes and starts the container. After a failure nothing of it is left.
func (d *Driver) launch(
	ctx context.Context, engine Engine, config *plugin.TaskConfig, options TaskConfig, image *Image,
) (_ *task, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	id, groups := containerID(config.ID), hostCgroups()
	place, files := groups.place(config, id), filesDir(config, id)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.discard(ctx, engine, id, files))
		}
	}()

	description, err := d.describe(ctx, engine, config, options, image, place, groups.host(), files)
	if err != nil {
		return nil, err
	}
	container, err := spec.Build(description, groups.host())
	if err != nil {
		return nil, err
	}
	state := taskState{
		ContainerID: id, StartedAt: time.Now(), StopSignal: image.Config.StopSignal,
		Image: image.Name, ImageDigest: image.Digest, CgroupsPath: place.Path, FilesDir: files,
	}
	encoded, err := state.encode()
	if err != nil {
		return nil, err
	}
	stdout, stderr, err := openLogs(config.AllocDir, config.StdoutPath, config.StderrPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stdout.Close(), stderr.Close()) }()

	request := ContainerRequest{
		ID: id, Image: image, Spec: container,
		Labels: containerLabels(config, options.Labels, encoded),
		Stdout: stdout.Path(), Stderr: stderr.Path(),
	}
	if err := startContainer(ctx, engine, request, place); err != nil {
		return nil, err
	}
	return newTask(config, state), nil
}

// startContainer creates a container, moves it where it is to be counted, and lets it run.
func startContainer(ctx context.Context, engine Engine, request ContainerRequest, place cgroupPlace) error {
	pid, err := engine.Create(ctx, request)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := place.join(pid); err != nil {
		return err
	}
	if err := engine.Start(ctx, request.ID); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// discard removes what a failed start made. It has a bound of its own, since the start's may be what failed.
func (d *Driver) discard(ctx context.Context, engine Engine, id, files string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	err := engine.Remove(ctx, id)
	if err != nil {
		err = fmt.Errorf("remove container of failed start: %w", err)
	}
	return errors.Join(err, removeFiles(files))
}

// removeFiles removes the folder that the driver made for a container, and the one above it when it was the last.
func removeFiles(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove files of task: %w", err)
	}
	// It fails while another container of the task has files there, which is as it should be.
	_ = os.Remove(filepath.Dir(dir))
	return nil
}

// describe gathers everything that decides how the container looks.
func (d *Driver) describe(
	ctx context.Context, engine Engine, config *plugin.TaskConfig, options TaskConfig, image *Image,
	place cgroupPlace, host spec.Host, files string,
) (spec.Task, error) {
	user, err := lookupUser(ctx, engine, image, config.User)
	if err != nil {
		return spec.Task{}, err
	}
	listen, err := listenAddress(config, options.Ports)
	if err != nil {
		return spec.Task{}, err
	}
	devices, err := lookupDevices(config.Devices)
	if err != nil {
		return spec.Task{}, err
	}
	name, err := hostname(options.Hostname, config, containerID(config.ID))
	if err != nil {
		return spec.Task{}, err
	}
	mounts, err := d.mounts(config, name, files)
	if err != nil {
		return spec.Task{}, err
	}
	return spec.Task{
		Image:      image.Config,
		Entrypoint: options.Entrypoint, Command: options.Command, Args: options.Args,
		Env: spec.Env(image.Config.Env,
			runtimeEnv(config, options, image, listen), config.DeviceEnv, config.Env),
		WorkDir: options.WorkDir, Hostname: name, User: user,
		ReadonlyRootfs: options.ReadonlyRootfs,
		Mounts:         mounts,
		Devices:        devices,
		Resources:      d.resources(config, place),
		CgroupsPath:    place.Path,
		Network:        network(config),
	}, nil
}

func (d *Driver) mounts(config *plugin.TaskConfig, hostname, files string) ([]spec.Mount, error) {
	dirs, err := taskDirs(config)
	if err != nil {
		return nil, err
	}
	network, err := writeNetworkFiles(files, hostname, config)
	if err != nil {
		return nil, err
	}
	return append(append(dirs, network...), agentMounts(config.Mounts)...), nil
}

func (d *Driver) resources(config *plugin.TaskConfig, place cgroupPlace) spec.Resources {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return spec.Resources{
		CPUMHz: config.Resources.CPUShares, NodeMHz: d.nodeMHz, Cpus: place.Cpus,
		MemoryMB: config.Resources.MemoryMB, MemoryMaxMB: config.Resources.MemoryMaxMB,
	}
}

// lookupUser is the task's user, or the image's when the task names none.
func lookupUser(ctx context.Context, engine Engine, image *Image, name string) (spec.User, error) {
	if name == "" {
		name = image.Config.User
	}
	if user, known := spec.ParseUser(name); known {
		return user, nil
	}
	user, err := engine.LookupUser(ctx, image, name)
	if err != nil {
		return spec.User{}, fmt.Errorf("look up user %q in image %s: %w", name, image.Name, err)
	}
	return user, nil
}

// runtimeEnv tells the prompt flow runtime inside the container who and where it is. What the job's own env block says wins
// over it.
func runtimeEnv(config *plugin.TaskConfig, options TaskConfig, image *Image, listen string) map[string]string {
	env := map[string]string{
		"PROMPTFLOW_RUNTIME":            config.JobName,
		"PROMPTFLOW_MAX_CONCURRENCY":    strconv.Itoa(options.MaxConcurrency),
		"PROMPTFLOW_WORKERS":            strconv.Itoa(options.Workers),
		"PROMPTFLOW_ENVIRONMENT_DIGEST": image.Digest,
	}
	maps.Copy(env, notEmpty(map[string]string{
		"PROMPTFLOW_LISTEN":      listen,
		"PROMPTFLOW_FLOW":        options.Flow,
		"PROMPTFLOW_ENVIRONMENT": options.Environment,
	}))
	return env
}

func notEmpty(values map[string]string) map[string]string {
	maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
	return values
}
