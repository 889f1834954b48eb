package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/nomad-promptflow/nomad-promptflow/driver/spec"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// StartTask makes a container for the task and starts it. When the agent sends a task again because it lost the answer, the
// container of the first time is taken over if it runs and replaced if it does not.
func (d *Driver) StartTask(ctx context.Context, config *plugin.TaskConfig) (_ *plugin.StartedTask, err error) {
	engine, pluginConfig, err := d.current()
	if err != nil {
		return nil, err
	}
	options, err := taskOptionsOf(config, pluginConfig)
	if err != nil {
		return nil, err
	}
	d.restored.Store(d.session.Load())
	d.onNode(config)
	unlock, err := d.lockForStart(ctx, containerID(config.ID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	d.leftovers.forget(containerID(config.ID))
	defer d.images.releaseFailed(config.ID, &err)
	if adopted, err := d.adopt(ctx, engine, config); adopted != nil || err != nil {
		return d.started(adopted, err)
	}
	image, err := d.ensureImage(ctx, engine, pluginConfig, config, options)
	if err != nil {
		return nil, retryable(err)
	}
	task, err := d.launch(ctx, engine, launchRequest{config: config, options: options, plugin: pluginConfig, image: image})
	return d.started(task, err)
}

// onNode remembers whose tasks these are.
func (d *Driver) onNode(config *plugin.TaskConfig) {
	if config.NodeID != "" {
		d.node.Store(&config.NodeID)
	}
}

// lockForStart waits for whoever else starts or destroys the same task.
func (d *Driver) lockForStart(ctx context.Context, container string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	unlock, err = d.locks.lock(ctx, container)
	return unlock, retryable(err)
}

// checkNames refuses a task whose folder would be somewhere else than in its allocation.
func checkNames(config *plugin.TaskConfig) error {
	switch name := config.Name; {
	case config.ID == "":
		return errors.New("start task: the agent gave it no id")
	case name == "." || name == "alloc" || !filepath.IsLocal(name) || strings.ContainsRune(name, filepath.Separator):
		return fmt.Errorf("task name %q: cannot be the name of a folder in the allocation", name)
	}
	return nil
}

// taskOptionsOf are a task's options, complete, and checked for what the operator allows.
func taskOptionsOf(config *plugin.TaskConfig, pluginConfig PluginConfig) (TaskConfig, error) {
	if err := checkNames(config); err != nil {
		return TaskConfig{}, err
	}
	options, err := decodeTaskConfig(config.DriverConfig)
	if err != nil {
		return TaskConfig{}, err
	}
	if err := pluginConfig.permit(&options); err != nil {
		return TaskConfig{}, fmt.Errorf("task configuration: %w", err)
	}
	return options.withDefaults(pluginConfig), nil
}

// launchRequest is everything a start depends on.
type launchRequest struct {
	config  *plugin.TaskConfig
	options TaskConfig
	plugin  PluginConfig
	image   *Image

	// Set by launch.
	id    string
	place cgroupPlace
	host  spec.Host
	files string // folder for the driver's own files of the task
	held  *heldFiles
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
	d.images.claim(task.id, task.state.Image)
	kept, isNew := d.tasks.add(task)
	d.claim(kept)
	if isNew {
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
	container, err := patientInspect(ctx, engine, id)
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

// patientInspect gives a daemon that is being restarted the time to come back: it would be a pity to spend one of the few attempts
// of a task's restart policy on it.
func patientInspect(ctx context.Context, engine Engine, id string) (*Container, error) {
	for patience := time.Now().Add(startPatience); ; {
		container, err := engine.Inspect(ctx, id)
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil || time.Now().After(patience) {
			return container, err
		}
		sleep(ctx, retryDelay)
	}
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
func (d *Driver) launch(ctx context.Context, engine Engine, request launchRequest) (_ *task, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	config, groups := request.config, hostCgroups()
	request.id = containerID(config.ID)
	request.place, request.files = groups.place(config, request.id), filesDir(config, request.id)
	request.held = &heldFiles{}
	defer func() { err = errors.Join(err, request.held.Close()) }()
	if request.host, err = hostFacts(groups); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			rest := residue{files: request.files, cgroup: request.place.Path}
			if errors.Is(err, ErrUnavailable) {
				d.removeLater(request.id, rest)
			}
			err = errors.Join(err, d.discard(ctx, request.id, rest))
		}
	}()

	description, err := d.describe(ctx, engine, request)
	if err != nil {
		return nil, err
	}
	container, err := spec.Build(description, request.host)
	if err != nil {
		return nil, err
	}
	state := taskState{
		ContainerID: request.id, StartedAt: time.Now(), StopSignal: request.image.Config.StopSignal,
		Image: request.image.Name, ImageDigest: request.image.Digest, CgroupsPath: request.place.Path, FilesDir: request.files,
		Runtime: request.options.Runtime,
	}
	if err := d.create(ctx, engine, request, container, state); err != nil {
		return nil, err
	}
	return newTask(config, state), nil
}

// create makes the container of a specification, with the task's logs, and starts it.
func (d *Driver) create(
	ctx context.Context, engine Engine, request launchRequest, container *specs.Spec, state taskState,
) (err error) {
	encoded, err := state.encode()
	if err != nil {
		return err
	}
	stdout, stderr, err := openTaskLogs(request.config, request.plugin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stdout.Close(), stderr.Close()) }()
	return startContainer(ctx, engine, ContainerRequest{
		ID: request.id, Image: request.image, Spec: container, Runtime: request.options.Runtime,
		SeccompUnconfined: request.options.Privileged || request.options.SeccompProfile == unconfined,
		Labels:            containerLabels(request.config, request.options.Labels, request.plugin.ExtraLabels, encoded),
		Marks:             map[string]string{labelNode: request.config.NodeID},
		Stdout:            stdout.Path(), Stderr: stderr.Path(),
	}, request.place, request.held)
}

// startContainer creates a container, moves it where it is to be counted, and lets it run once it is seen to have the mounts
// that were looked at.
func startContainer(ctx context.Context, engine Engine, request ContainerRequest, place cgroupPlace, held *heldFiles) error {
	pid, err := engine.Create(ctx, request)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	if err := place.join(pid); err != nil {
		return err
	}
	if sharesKernel(request.Runtime) {
		if err := held.verify(pid); err != nil {
			return err
		}
	}
	if err := engine.Start(ctx, request.ID); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// sharesKernel says whether a runtime's containers are processes of this node, whose mounts can be looked at, and not
// machines of their own.
func sharesKernel(runtime string) bool { return strings.HasPrefix(runtime, "io.containerd.runc.") }

// discard removes what a failed start made. It has a bound of its own, since the start's may be what failed. A daemon that went away
// in the middle may have made more than it had time to say, so what fails here is tried again when it is back.
func (d *Driver) discard(ctx context.Context, id string, rest residue) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if err := d.removeWhole(ctx, id, rest); err != nil {
		return fmt.Errorf("clean up after failed start: %w", err)
	}
	return nil
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
func (d *Driver) describe(ctx context.Context, engine Engine, request launchRequest) (spec.Task, error) {
	config, options, image := request.config, request.options, request.image
	user, err := lookupUser(ctx, engine, image, config.User, options.GroupAdd)
	if err != nil {
		return spec.Task{}, err
	}
	listen, err := listenAddress(config, options)
	if err != nil {
		return spec.Task{}, err
	}
	devices, err := taskDevices(config, options)
	if err != nil {
		return spec.Task{}, err
	}
	resources, err := d.resources(config, options, request.place)
	if err != nil {
		return spec.Task{}, err
	}
	mounts, name, err := d.mounts(request)
	if err != nil {
		return spec.Task{}, err
	}
	described := spec.Task{
		Image:      image.Config,
		Entrypoint: options.Entrypoint, Command: options.Command, Args: options.Args,
		Env: spec.Env(image.Config.Env,
			runtimeEnv(config, options, image, listen), config.DeviceEnv, config.Env),
		WorkDir: options.WorkDir, Hostname: name, User: user, TTY: options.TTY,
		ReadonlyRootfs: options.ReadonlyRootfs, ShmSize: options.ShmSize,
		Mounts:      mounts,
		Devices:     devices,
		Resources:   resources,
		CgroupsPath: request.place.Path,
		Network:     network(config, options),
	}
	if options.Init {
		described.Init = initCommand()
	}
	return described, request.secure(&described)
}

// secure sets what confines the task.
func (r launchRequest) secure(described *spec.Task) error {
	options := r.options
	rights, err := spec.Capabilities(r.plugin.AllowCaps, options.CapAdd, options.CapDrop)
	if err != nil {
		return err
	}
	described.Capabilities, described.Privileged = rights, options.Privileged
	described.NoNewPrivileges = options.NoNewPrivileges
	described.Sysctl = options.Sysctl
	described.Host = spec.SharedNamespaces{
		PID: options.PIDMode == "host", IPC: options.IPCMode == "host",
		UTS: options.UTSMode == "host", Cgroup: options.CgroupNS == "host",
	}
	if described.Rlimits, err = spec.Rlimits(options.Ulimit); err != nil {
		return err
	}
	if described.ApparmorProfile, err = apparmorProfile(options); err != nil {
		return err
	}
	described.Seccomp, err = seccompProfile(r.config, options, rights)
	return err
}

// mounts are the task's folders, the driver's own files, and what agent and job ask for. Name is the container's host name,
// which some of those files have in them.
func (d *Driver) mounts(request launchRequest) (mounts []spec.Mount, name string, err error) {
	config, options := request.config, request.options
	if name, err = hostname(config, options, request.id); err != nil {
		return nil, "", err
	}
	dirs, err := taskDirs(config)
	if err != nil {
		return nil, "", err
	}
	network, err := writeNetworkFiles(request.files, name, config, options)
	if err != nil {
		return nil, "", err
	}
	own, err := taskMounts(request.held, request.plugin.Volumes, config, options)
	if err != nil {
		return nil, "", err
	}
	mounts = slices.Concat(dirs, network, agentMounts(config.Mounts), own)
	if options.Init {
		mounts = append(mounts, d.initMount())
	}
	return mounts, name, nil
}

// initPath is where the init process is inside a container.
const initPath = "/.nomad-promptflow-init"

func initCommand() []string { return []string{initPath, "init", "--"} }

// initMount shows this very program inside the container. It is static, and so runs in any image.
func (d *Driver) initMount() spec.Mount {
	return spec.Mount{Source: d.parts.InitBinary, Target: initPath, ReadOnly: true}
}

// defaultCPUPeriod is the kernel's, in microseconds.
const defaultCPUPeriod = 100000

func (d *Driver) resources(config *plugin.TaskConfig, options TaskConfig, place cgroupPlace) (spec.Resources, error) {
	d.mu.RLock()
	nodeMHz := d.compute.mhz
	d.mu.RUnlock()
	limits := spec.Resources{
		CPUMHz: config.Resources.CPUShares, NodeMHz: nodeMHz, Cpus: place.Cpus,
		MemoryMB: config.Resources.MemoryMB, MemoryMaxMB: config.Resources.MemoryMaxMB,
		Swappiness: options.MemorySwappiness, Pids: options.PidsLimit, OOMScoreAdj: options.OOMScoreAdj,
	}
	if hard := options.MemoryHardLimit; hard > 0 && limits.MemoryMaxMB == 0 {
		if hard < limits.MemoryMB {
			return limits, fmt.Errorf("memory_hard_limit %d: is below the task's memory of %d MB", hard, limits.MemoryMB)
		}
		limits.MemoryMaxMB = hard
	}
	var err error
	if limits.Swap, err = spec.ParseSwap(options.MemorySwap); err != nil {
		return limits, err
	}
	if options.CPUHardLimit {
		limits.CPUPeriod = options.CPUCFSPeriod
		if limits.CPUPeriod == 0 {
			limits.CPUPeriod = defaultCPUPeriod
		}
		part := cpuPart(config, nodeMHz)
		if part <= 0 {
			return limits, errors.New("cpu_hard_limit: the agent does not say how much compute the node has")
		}
		limits.CPUQuota = int64(part * float64(limits.CPUPeriod) * float64(cores()))
	}
	return limits, nil
}

// cpuPart is the task's part of the node's compute, 0 when the agent said too little.
func cpuPart(config *plugin.TaskConfig, nodeMHz int64) float64 {
	if linux := config.Resources.Linux; linux != nil && linux.PercentTicks > 0 {
		return linux.PercentTicks
	}
	if nodeMHz <= 0 {
		return 0
	}
	return float64(config.Resources.CPUShares) / float64(nodeMHz)
}

// lookupUser is the task's user, or the image's when the task names none, with more groups.
func lookupUser(ctx context.Context, engine Engine, image *Image, name string, groups []string) (spec.User, error) {
	if name == "" {
		name = image.Config.User
	}
	if user, known := spec.ParseUser(name, groups); known {
		return user, nil
	}
	user, err := engine.LookupUser(ctx, image, name, groups)
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
