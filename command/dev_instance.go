package command

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
	"github.com/nomad-promptflow/nomad-promptflow/plugin/agent"
)

const (
	// readyTimeout bounds the time from a started container to a ready runtime.
	readyTimeout = 90 * time.Second
	// readyInterval is how often a runtime is asked whether it is ready.
	readyInterval = 50 * time.Millisecond
	// lastLog is how much of a failed runtime's log is shown, in bytes.
	lastLog = 4 << 10
	// runtimeUser is the user of the base image, which has to be able to read its token.
	runtimeUser = 1000
)

// devInstance is one allocation of the runtime.
type devInstance struct {
	alloc   *agent.Alloc
	task    *plugin.TaskConfig
	address string
	token   string
	dir     string
	exited  chan struct{}
	exit    *plugin.ExitResult
	waitErr error
}

func (i *devInstance) logFile() string {
	return filepath.Join(i.dir, "alloc", "logs", i.task.Name+".stderr.0")
}

func (d *devCluster) concurrency() int {
	n, err := strconv.Atoi(d.vars["max_concurrency"])
	if err != nil {
		return 32
	}
	return n
}

// startInstances starts all instances at once and waits until all are ready.
func (d *devCluster) startInstances(ctx context.Context) error {
	schema, err := d.driver.TaskConfigSchema(ctx)
	if err != nil {
		return fmt.Errorf("read the driver's task schema: %w", err)
	}
	config, err := agent.DecodeConfig(schema, d.task.Config, nil)
	if err != nil {
		return err
	}
	// One failure ends the wait for the others.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.instances = make([]*devInstance, d.options.count)
	errs := make([]error, d.options.count)
	var all sync.WaitGroup
	for index := range d.instances {
		all.Go(func() {
			if errs[index] = d.startInstance(ctx, index, config); errs[index] != nil {
				cancel()
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

func (d *devCluster) startInstance(ctx context.Context, index int, config []byte) error {
	began := time.Now()
	instance, err := d.allocate(ctx, index)
	if err != nil {
		return err
	}
	d.instances[index] = instance
	d.progress.doing("instance %d: starting a container", index)
	if err := d.startTask(ctx, instance, config); err != nil {
		return err
	}
	started := time.Since(began)
	if err := d.awaitReady(ctx, instance); err != nil {
		return err
	}
	d.progress.did("instance %d: container running after %s, ready after %s", index, seconds(started.Seconds()), seconds(time.Since(began).Seconds()))
	return nil
}

// allocate makes the instance's folders, port and token.
func (d *devCluster) allocate(ctx context.Context, index int) (*devInstance, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	instance := &devInstance{dir: filepath.Join(d.runDir, "alloc-"+strconv.Itoa(index)), exited: make(chan struct{})}
	env := modelEnv()
	maps.Copy(env, d.task.Env)
	env["PROMPTFLOW_TRUST"] = "file:/secrets/token"
	instance.alloc, err = agent.NewAlloc(agent.AllocConfig{
		Dir: instance.dir, Job: d.task.Job, Group: d.task.Group, Task: d.task.Name, Index: index,
		CPU: d.task.CPU, MemoryMB: d.task.MemoryMB, MemoryMaxMB: d.task.MemoryMaxMB, Env: env, SecretsTmpfs: true,
		Ports: []plugin.Port{{Label: d.task.Ports[0], Host: int32(port), HostIP: "127.0.0.1"}},
	})
	if err != nil {
		return nil, err
	}
	d.undo(func(context.Context) error { return instance.alloc.Destroy() })
	instance.address = fmt.Sprintf("http://127.0.0.1:%d", port)
	instance.token, err = writeToken(filepath.Join(instance.alloc.SecretsDir(), "token"))
	return instance, err
}

// modelEnv are this process's variables that say where models are and by which key, so that flows with llm nodes work here as they
// do where they are written.
func modelEnv() map[string]string {
	env := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "OPENAI_") || strings.HasPrefix(name, "AZURE_OPENAI_") {
			env[name] = value
		}
	}
	return env
}

// writeToken makes a token that only the runtime and this process know.
func writeToken(path string) (string, error) {
	random := make([]byte, 32)
	_, _ = rand.Read(random)
	token := hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	if err := os.Chown(path, runtimeUser, runtimeUser); err != nil {
		return "", fmt.Errorf("give token to the runtime: %w", err)
	}
	return token, nil
}

// freePort is a loopback port that was free a moment ago.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}

// startTask starts the instance's container through the driver, and watches it from then on.
func (d *devCluster) startTask(ctx context.Context, instance *devInstance, config []byte) error {
	instance.task = instance.alloc.Task(config)
	id := instance.task.ID
	// Registered first: a start that fails half way is the driver's to undo, one that is cut off is ours.
	d.undo(func(ctx context.Context) error {
		stopErr := d.driver.StopTask(ctx, id, d.task.KillTimeout, "")
		// What was not to be waited for is destroyed all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := d.driver.DestroyTask(ctx, id, true); err != nil {
			return errors.Join(stopErr, err)
		}
		return nil
	})
	if _, _, err := d.driver.StartTask(ctx, instance.task); err != nil {
		return fmt.Errorf("start task %s: %w", instance.alloc.ID()[:8], err)
	}
	go d.watch(instance)
	return nil
}

// watch waits for the container's end and says so.
func (d *devCluster) watch(instance *devInstance) {
	defer close(instance.exited)
	instance.exit, instance.waitErr = d.driver.WaitTask(context.Background(), instance.task.ID)
	select {
	case d.failed <- d.exitError(instance):
	default:
	}
}

// exitError is what there is to say about a runtime that has ended.
func (d *devCluster) exitError(instance *devInstance) error {
	var how string
	switch exit := instance.exit; {
	case instance.waitErr != nil:
		how = "was lost: " + instance.waitErr.Error()
	case exit.OOMKilled:
		how = fmt.Sprintf("ran out of memory (limit %d MiB): give it more with -var memory=…", d.task.MemoryMB)
	case exit.Signal != 0:
		how = fmt.Sprintf("was ended by signal %d", exit.Signal)
	default:
		how = fmt.Sprintf("exited with code %d", exit.ExitCode)
	}
	return fmt.Errorf("runtime instance %s %s%s", instance.alloc.ID()[:8], how, logTail(instance))
}

func logTail(instance *devInstance) string {
	tail, err := instance.alloc.Logs().Tail(lastLog)
	if tail = strings.TrimSpace(tail); err != nil || tail == "" {
		return ""
	}
	return "; the end of its log:\n  " + strings.ReplaceAll(tail, "\n", "\n  ")
}

func (d *devCluster) awaitReady(ctx context.Context, instance *devInstance) error {
	client, err := api.NewClient(instance.address, instance.token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		err := client.Ready(ctx)
		if err == nil {
			return nil
		}
		d.progress.doing("instance %s: %s", instance.alloc.ID()[:8], err)
		select {
		case <-instance.exited:
			return d.exitError(instance)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("runtime instance %s was not ready within %s: %w%s", instance.alloc.ID()[:8], readyTimeout, err, logTail(instance))
		case <-ticker.C:
		}
	}
}
