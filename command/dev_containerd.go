package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// systemContainerd is where a system's own containerd listens.
	systemContainerd = "/run/containerd/containerd.sock"
	containerdStart  = 30 * time.Second
	containerdStop   = 20 * time.Second
)

// findContainerd uses the containerd that was named or that runs already; else it starts one.
func (d *devCluster) findContainerd(ctx context.Context) error {
	if d.options.containerd != "" {
		if err := dialUnix(ctx, d.options.containerd); err != nil {
			return fmt.Errorf("reach containerd at %s: %w: check -containerd, or leave it out to have one started", d.options.containerd, err)
		}
		d.containerd = d.options.containerd
		return nil
	}
	if dialUnix(ctx, systemContainerd) == nil {
		d.containerd = systemContainerd
		d.progress.did("containerd: the one at %s", systemContainerd)
		return nil
	}
	return d.startContainerd(ctx)
}

func dialUnix(ctx context.Context, path string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}

// startContainerd starts a containerd whose images stay in the data folder and whose state goes with the run folder.
func (d *devCluster) startContainerd(ctx context.Context) error {
	for _, program := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("no containerd is running, and there is no %s to start one with: apt-get install containerd runc", program)
		}
	}
	d.containerd = filepath.Join(d.runDir, "containerd.sock")
	state := filepath.Join(d.runDir, "containerd")
	config := filepath.Join(d.runDir, "containerd.toml")
	// Without Kubernetes' part, which is slow to start. Its names differ from version to version.
	err := os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = %q
[plugins."io.containerd.internal.v1.opt"]
  path = %q
`, filepath.Join(d.options.dataDir, "containerd"), state, d.containerd, filepath.Join(d.options.dataDir, "opt")), 0o600)
	if err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	log, err := os.Create(filepath.Join(d.options.dataDir, "containerd.log"))
	if err != nil {
		return fmt.Errorf("make containerd's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("containerd", "--config", config) //nolint:noctx // it ends after the tasks, in order
	cmd.Stdout, cmd.Stderr = log, log
	// An interrupt at the terminal is for this process, which then ends containerd in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		// How it ended is of no use: it is asked to, or its log says why.
		_ = cmd.Wait()
	}()
	d.undo(func(context.Context) error {
		return errors.Join(endProcess(cmd.Process, exited, containerdStop), unmountBelow(d.runDir))
	})
	if err := d.awaitContainerd(ctx, exited); err != nil {
		return fmt.Errorf("start containerd: %w; its log: %s", err, log.Name())
	}
	d.progress.did("containerd: started, data in %s", filepath.Join(d.options.dataDir, "containerd"))
	return nil
}

func (d *devCluster) awaitContainerd(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, containerdStart)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := dialUnix(ctx, d.containerd)
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return errors.New("it exited at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-ticker.C:
		}
	}
}

// endProcess asks a process to end and makes it.
func endProcess(process *os.Process, exited <-chan struct{}, patience time.Duration) error {
	if err := process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end process %d: %w", process.Pid, err)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-exited:
		return nil
	case <-timer.C:
	}
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", process.Pid, err)
	}
	<-exited
	return nil
}

// unmountBelow takes away what is still mounted below a folder, the deepest first.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	lines := strings.Split(string(data), "\n")
	var errs []error
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		if err := unix.Unmount(fields[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", fields[4], err))
		}
	}
	return errors.Join(errs...)
}
