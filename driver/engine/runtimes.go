package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// standardPath is searched beside the daemon's own path: it is what init systems give to a daemon, and where containerd itself
// installs more binaries.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/containerd/bin"

// peerTimeout bounds the look at who is behind the socket.
const peerTimeout = time.Second

// withShim are those of the names whose shim the daemon will find. They are shims' full names or paths.
func withShim(ctx context.Context, address string, names []string) []string {
	root, dirs := daemonPath(ctx, address)
	var available []string
	for _, name := range names {
		if hasShim(root, dirs, name) {
			available = append(available, name)
		}
	}
	return available
}

func hasShim(root string, dirs []string, runtime string) bool {
	if filepath.IsAbs(runtime) {
		return isExecutable(filepath.Join(root, runtime))
	}
	binary := shimBinary(runtime)
	if binary == "" {
		return false
	}
	for _, dir := range dirs {
		if filepath.IsAbs(dir) && isExecutable(filepath.Join(root, dir, binary)) {
			return true
		}
	}
	return false
}

// shimBinary is how containerd names a runtime's binary: "io.containerd.runc.v2" is containerd-shim-runc-v2.
func shimBinary(runtime string) string {
	parts := strings.Split(runtime, ".")
	if len(parts) < 2 || parts[0] == "" {
		return ""
	}
	return "containerd-shim-" + parts[len(parts)-2] + "-" + parts[len(parts)-1]
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// daemonPath is where the daemon looks for shims: the root of its file system as seen from here, and its folders. A daemon that
// cannot be looked at is taken to be like this process.
func daemonPath(ctx context.Context, address string) (root string, dirs []string) {
	path := os.Getenv("PATH")
	root = "/"
	if pid, err := listener(ctx, address); err == nil {
		root = fmt.Sprintf("/proc/%d/root", pid)
		path = environment(pid, "PATH")
	}
	return root, filepath.SplitList(path + ":" + standardPath)
}

// listener is the id of the process that listens at a unix socket.
func listener(ctx context.Context, address string) (pid int32, err error) {
	dialer := net.Dialer{Timeout: peerTimeout}
	conn, err := dialer.DialContext(ctx, "unix", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var peer *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return peer.Pid, nil
}

// environment is a variable that a process was started with, empty when it has none or it cannot be read.
func environment(pid int32, name string) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(content, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}
