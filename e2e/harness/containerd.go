package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

const (
	containerdStart = 30 * time.Second
	containerdStop  = 15 * time.Second
)

// ContainerdDaemon is a containerd of a test's own, with its own root, state and socket.
type ContainerdDaemon struct {
	// Address is the path of its socket.
	Address string
	// Root and State are its folders.
	Root, State string

	t       testing.TB
	dir     string
	command *exec.Cmd
	exited  chan struct{}
	small   bool // Root is a file system of its own
}

// Containerd starts a containerd, which ends with the test together with every container, shim and mount of it. It needs root
// and Debian's containerd and runc.
func Containerd(t testing.TB) *ContainerdDaemon {
	t.Helper()
	d := newContainerd(t)
	d.Start()
	return d
}

// ContainerdOnSmallDisk is [Containerd] with no more than size bytes of disk.
func ContainerdOnSmallDisk(t testing.TB, size int64) *ContainerdDaemon {
	t.Helper()
	d := newContainerd(t)
	if err := os.Mkdir(d.Root, 0o711); err != nil {
		t.Fatalf("harness: make containerd root: %v", err)
	}
	if err := syscall.Mount("tmpfs", d.Root, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("harness: mount small disk: %v", err)
	}
	d.small = true
	d.Start()
	return d
}

func newContainerd(t testing.TB) *ContainerdDaemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("harness: containerd needs root")
	}
	dir, err := os.MkdirTemp("", "pf-ctd-") //nolint:usetesting // a socket's path has at most 107 bytes, t.TempDir's is longer
	if err != nil {
		t.Fatalf("harness: make folder for containerd: %v", err)
	}
	d := &ContainerdDaemon{
		Address: filepath.Join(dir, "c.sock"), Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"),
		t: t, dir: dir,
	}
	t.Cleanup(d.cleanUp)
	if err := os.WriteFile(d.configPath(), []byte(d.configuration()), 0o600); err != nil {
		t.Fatalf("harness: write containerd configuration: %v", err)
	}
	return d
}

func (d *ContainerdDaemon) configPath() string { return filepath.Join(d.dir, "config.toml") }

// configuration leaves out Kubernetes' part, which is slow to start and wants a network configuration. Its names differ from
// version to version.
func (d *ContainerdDaemon) configuration() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[debug]
  level = "warn"

[grpc]
  address = %q

[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, d.Root, d.State, d.Address, filepath.Join(d.dir, "opt"))
}

// Start starts the daemon, again after Kill, and returns when it answers.
func (d *ContainerdDaemon) Start() {
	d.t.Helper()
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatalf("harness: open containerd log: %v", err)
	}
	defer log.Close()
	command := exec.CommandContext(context.WithoutCancel(d.t.Context()), "containerd", "--config", d.configPath())
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		d.t.Fatalf("harness: start containerd: %v: run make bootstrap", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = command.Wait() // it says how the signal ended it
	}()
	d.command, d.exited = command, exited
	if err := d.awaitServing(); err != nil {
		d.t.Fatalf("harness: start containerd: %v\n%s", err, d.log())
	}
}

func (d *ContainerdDaemon) awaitServing() error {
	ctx, cancel := context.WithTimeout(context.Background(), containerdStart)
	defer cancel()
	client, err := containerd.New(d.Address, containerd.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.IsServing(ctx)
	return err
}

func (d *ContainerdDaemon) logPath() string { return filepath.Join(d.dir, "containerd.log") }

func (d *ContainerdDaemon) log() string {
	content, err := os.ReadFile(d.logPath())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-8<<10):])
}

// Kill ends the daemon as a crash would. Its containers run on.
func (d *ContainerdDaemon) Kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
}

// Pause makes the daemon hang until Resume or the end of the test.
func (d *ContainerdDaemon) Pause() {
	d.t.Helper()
	if err := d.command.Process.Signal(syscall.SIGSTOP); err != nil {
		d.t.Fatalf("harness: stop containerd: %v", err)
	}
	d.t.Cleanup(d.Resume)
}

// Resume lets a paused daemon go on.
func (d *ContainerdDaemon) Resume() {
	if d.command != nil {
		_ = d.command.Process.Signal(syscall.SIGCONT)
	}
}

// Reboot does to the daemon and its containers what a reboot of the machine does: every process is gone, and what is not on disk.
func (d *ContainerdDaemon) Reboot() {
	d.t.Helper()
	d.Kill()
	var groups []string
	for _, pid := range d.Shims() {
		for _, child := range children(pid) {
			groups = append(groups, cgroups(child)...)
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	d.await("shims end", func() bool { return len(d.Shims()) == 0 })
	for _, group := range groups {
		d.await("cgroup "+group+" is empty", func() bool { err := os.Remove(group); return err == nil || os.IsNotExist(err) })
	}
	for _, target := range d.Mounts() {
		if err := mount.UnmountAll(target, 0); err != nil {
			d.t.Fatalf("harness: unmount %s: %v", target, err)
		}
	}
	if err := os.RemoveAll(d.State); err != nil {
		d.t.Fatalf("harness: remove containerd state: %v", err)
	}
	d.Start()
}

// await waits for what has no event.
func (d *ContainerdDaemon) await(what string, done func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(containerdStop)
	for !done() {
		if time.Now().After(deadline) {
			d.t.Fatalf("harness: %s: not within %s", what, containerdStop)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// cgroups are the folders of a process's own cgroups.
func cgroups(pid int) []string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(content)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) == 3 && len(fields[2]) > 1 {
			list = append(list, filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(fields[1], "name="), fields[2]))
		}
	}
	return list
}

// children are the ids of the processes that the threads of a process started.
func children(pid int) []int {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var list []int
	for _, thread := range threads {
		content, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		for _, field := range strings.Fields(string(content)) {
			if child, err := strconv.Atoi(field); err == nil {
				list = append(list, child)
			}
		}
	}
	return list
}

// PID is the daemon's process id, 0 while it does not run.
func (d *ContainerdDaemon) PID() int {
	if d.command == nil {
		return 0
	}
	return d.command.Process.Pid
}

// signal sends a signal and waits for the end of the daemon.
func (d *ContainerdDaemon) signal(signal syscall.Signal) {
	d.t.Helper()
	if d.command == nil {
		return
	}
	_ = d.command.Process.Signal(signal)
	select {
	case <-d.exited:
	case <-time.After(containerdStop):
		_ = d.command.Process.Kill()
		<-d.exited
		d.t.Errorf("harness: containerd did not end %s after signal %s", containerdStop, signal)
	}
	d.command = nil
}

// Client is a client of the daemon in the given namespace; it is closed with the test.
func (d *ContainerdDaemon) Client(namespace string) *containerd.Client {
	d.t.Helper()
	client, err := containerd.New(d.Address, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		d.t.Fatalf("harness: make containerd client: %v", err)
	}
	d.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Shims are the process ids of the daemon's shims.
func (d *ContainerdDaemon) Shims() []int {
	d.t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		d.t.Fatalf("harness: list processes: %v", err)
	}
	var shims []int
	for _, entry := range entries {
		content, err := os.ReadFile(entry)
		if err != nil {
			continue // it has ended
		}
		arguments := strings.Split(string(content), "\x00")
		if !strings.Contains(filepath.Base(arguments[0]), "containerd-shim") || !contains(arguments, d.Address) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry))); err == nil {
			shims = append(shims, pid)
		}
	}
	return shims
}

func contains(list []string, value string) bool {
	for _, v := range list {
		if v == value {
			return true
		}
	}
	return false
}

// Mounts are the mount points below the daemon's folder that its containers made.
func (d *ContainerdDaemon) Mounts() []string {
	d.t.Helper()
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatalf("harness: read mounts: %v", err)
	}
	var mounts []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], d.dir+"/") && fields[4] != d.Root {
			mounts = append(mounts, fields[4])
		}
	}
	return mounts
}

// cleanUp removes what the test left in the daemon, ends the daemon, and removes its folder.
func (d *ContainerdDaemon) cleanUp() {
	if d.t.Failed() {
		d.t.Logf("containerd log:\n%s", d.log())
	}
	if d.command == nil {
		d.Start()
	}
	if err := d.removeContainers(); err != nil {
		d.t.Errorf("harness: remove containers: %v", err)
	}
	d.signal(syscall.SIGTERM)
	d.endShims()
	for _, target := range d.Mounts() {
		if err := mount.UnmountAll(target, 0); err != nil {
			d.t.Errorf("harness: unmount %s: %v", target, err)
		}
	}
	if d.small {
		if err := mount.UnmountAll(d.Root, 0); err != nil {
			d.t.Errorf("harness: unmount small disk: %v", err)
		}
	}
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Errorf("harness: remove containerd folder: %v", err)
	}
}

func (d *ContainerdDaemon) removeContainers() error {
	ctx, cancel := context.WithTimeout(context.Background(), containerdStop)
	defer cancel()
	client, err := containerd.New(d.Address)
	if err != nil {
		return err
	}
	defer client.Close()
	names, err := client.NamespaceService().List(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range names {
		ctx := namespaces.WithNamespace(ctx, name)
		list, err := client.Containers(ctx)
		if err != nil {
			return err
		}
		for _, container := range list {
			failed = append(failed, removeContainer(ctx, container))
		}
	}
	return errors.Join(failed...)
}

func removeContainer(ctx context.Context, container containerd.Container) error {
	if task, err := container.Task(ctx, nil); err == nil {
		if _, err := task.Delete(ctx, containerd.WithProcessKill); err != nil {
			return err
		}
	}
	return container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// endShims waits for shims to end by themselves, and kills those that do not.
func (d *ContainerdDaemon) endShims() {
	deadline := time.Now().Add(containerdStop)
	for len(d.Shims()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	for _, pid := range d.Shims() {
		d.t.Errorf("harness: shim %d did not end with its container", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
