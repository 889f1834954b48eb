package agent

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const (
	sharedDir  = "alloc"
	secretsDir = "secrets"
	privateDir = "private"
	// secretsSize is the size of a tmpfs for secrets, an agent's default.
	secretsSize = "1m"
)

// folders are an allocation's folders with an agent's modes and owner: a container may run as any user, so they are open to all,
// and closed to other users of the host by the folder that holds the allocations.
type folders struct {
	root   string
	mounts []string
}

func makeFolders(root, task string, inMemory bool) (*folders, error) {
	if err := makeRoot(root); err != nil {
		return nil, err
	}
	f := &folders{root: root}
	if err := f.fill(task, inMemory); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

// makeRoot refuses a folder with something in it: it would be removed with the allocation.
func makeRoot(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("read folder: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("folder %s: must be empty, holds %q", root, entries[0].Name())
	}
	return nil
}

func (f *folders) fill(task string, inMemory bool) error {
	for _, dir := range []string{sharedDir, sharedDir + "/data", sharedDir + "/logs", sharedDir + "/tmp", task, task + "/local"} {
		if err := openToAll(filepath.Join(f.root, dir), 0o777); err != nil {
			return err
		}
	}
	if err := openToAll(filepath.Join(f.root, task, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, dir := range []string{secretsDir, privateDir} {
		path := filepath.Join(f.root, task, dir)
		if err := os.Mkdir(path, 0o777); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if inMemory {
			if err := f.mount(path); err != nil {
				return err
			}
		}
		if err := openToAll(path, 0o777); err != nil {
			return err
		}
	}
	return nil
}

func (f *folders) mount(path string) error {
	options := "mode=0777,size=" + secretsSize
	flags := uintptr(unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV)
	// Secrets must not reach a swap device; kernels before 6.4 cannot promise it.
	err := unix.Mount("tmpfs", path, "tmpfs", flags, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", path, "tmpfs", flags, options)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount tmpfs on %s: %w: run as root or keep secrets on disk", path, err)
	}
	if err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", path, err)
	}
	f.mounts = append(f.mounts, path)
	return nil
}

// openToAll makes a folder with this mode whatever the umask, owned by nobody where we may say so.
func openToAll(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make folder: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("open folder to all: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := nobody()
	if err != nil {
		return err
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("give folder to nobody: %w", err)
	}
	return nil
}

func nobody() (uid, gid int, err error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return 0, 0, fmt.Errorf("find user nobody: %w", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, fmt.Errorf("find user nobody: uid %q: %w", u.Uid, err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		return 0, 0, fmt.Errorf("find user nobody: gid %q: %w", u.Gid, err)
	}
	return uid, gid, nil
}

// remove unmounts and removes everything. It removes nothing while something foreign is still mounted below, because that would be
// emptied.
func (f *folders) remove() error {
	for len(f.mounts) > 0 {
		last := f.mounts[len(f.mounts)-1]
		if err := unix.Unmount(last, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", last, err)
		}
		f.mounts = f.mounts[:len(f.mounts)-1]
	}
	root, err := filepath.EvalSymlinks(f.root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove allocation: %w", err)
	}
	left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil {
		return fmt.Errorf("remove allocation: read mounts: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("remove allocation: %s is still mounted: unmount it first", left[0].Mountpoint)
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("remove allocation: %w", err)
	}
	return nil
}
