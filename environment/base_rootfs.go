package environment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// debianSuite is the Debian release of the base image: its Python is 3.11, which promptflow-core and all it needs support.
const debianSuite = "bookworm"

var debianMirror = Mirror{Archive: "http://deb.debian.org/debian", Security: "http://deb.debian.org/debian-security"}

func (m Mirror) orDebian() Mirror {
	if m.Archive == "" {
		m.Archive = debianMirror.Archive
	}
	if m.Security == "" {
		m.Security = debianMirror.Security
	}
	return m
}

// sources are the lines of apt's sources.list.
func (m Mirror) sources() []string {
	return []string{
		fmt.Sprintf("deb %s %s main", m.Archive, debianSuite),
		fmt.Sprintf("deb %s %s-updates main", m.Archive, debianSuite),
		fmt.Sprintf("deb %s %s-security main", m.Security, debianSuite),
	}
}

// rootfsStep makes the Debian root file system. Its inputs do not name Debian's state of the day: a finished layer stays until it is
// refreshed.
func (b *baseBuild) rootfsStep(ctx context.Context) (step, error) {
	version, err := mmdebstrapVersion(ctx)
	if err != nil {
		return step{}, err
	}
	key := layerKey([]byte("rootfs/1"), []byte(runtime.GOARCH), []byte(debianSuite), []byte(sourceDate.String()), version,
		baseFile("rootfs.packages"), baseFile("rootfs.dpkg"), baseFile("rootfs.sh"), baseFile("compile.py"))
	return step{stage: StageRootFS, kind: "rootfs", key: key, make: b.makeRootfs}, nil
}

func mmdebstrapVersion(ctx context.Context) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "mmdebstrap", "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("mmdebstrap is missing, which makes Debian root file systems: apt-get install mmdebstrap: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask mmdebstrap for its version: %w", err)
	}
	return bytes.TrimSpace(out), nil
}

func (b *baseBuild) makeRootfs(ctx context.Context, path string) (blobInfo, map[string]string, error) {
	box, err := b.sandbox()
	if err != nil {
		return blobInfo{}, nil, err
	}
	root := filepath.Join(b.temp, "rootfs")
	if err := box.host(ctx, "mmdebstrap", mmdebstrapArguments(root, b.o.Mirror)...); err != nil {
		return blobInfo{}, nil, err
	}
	b.reports.detail("compiling Python's modules")
	if err := box.chroot(ctx, root, "sh", "/mnt/rootfs.sh"); err != nil {
		return blobInfo{}, nil, err
	}
	packages, err := debianPackages(root)
	if err != nil {
		return blobInfo{}, nil, err
	}
	b.reports.detail("packing")
	t := tree{root: root, skip: skipRootfs}
	info, err := writeLayer(ctx, path, b.reports.written, t.write)
	if err != nil {
		return blobInfo{}, nil, err
	}
	return info, packages, os.RemoveAll(root)
}

func mmdebstrapArguments(root string, mirror Mirror) []string {
	args := []string{
		"--mode=root", "--variant=apt", "--format=directory",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
		"--include=" + strings.Join(baseLines("rootfs.packages"), ","),
	}
	for _, option := range baseLines("rootfs.dpkg") {
		args = append(args, "--dpkgopt="+option)
	}
	args = append(args, debianSuite, root)
	return append(args, mirror.sources()...)
}

// emptyFolders are there in the image, but what was in them during the build is not.
var emptyFolders = map[string]bool{"dev": true, "proc": true, "sys": true, "run": true, "tmp": true, "mnt": true}

// hostFiles are the container engine's to make.
var hostFiles = map[string]bool{"etc/resolv.conf": true, "etc/hosts": true, "etc/hostname": true}

func skipRootfs(name string, _ fs.DirEntry) bool {
	return emptyFolders[filepath.Dir(name)] || hostFiles[name]
}

// debianPackages reads which packages dpkg has installed in a root file system.
func debianPackages(root string) (map[string]string, error) {
	raw, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("list Debian packages: %w", err)
	}
	packages := map[string]string{}
	name := ""
	for line := range strings.Lines(string(raw)) {
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "Package":
			name = value
		case "Version":
			packages[name] = value
		}
	}
	return packages, nil
}

// sandbox makes ready what programs need that work on a root file system.
func (b *baseBuild) sandbox() (*sandbox, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("root is needed, because mmdebstrap and chroot mount file systems and make files of other users: " +
			"run this with sudo")
	}
	box := &sandbox{inputs: filepath.Join(b.temp, "inputs"), temp: filepath.Join(b.temp, "tmp"), line: b.reports.line}
	for _, dir := range []string{box.inputs, box.temp} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	// mmdebstrap's apt downloads as an own user.
	if err := os.Chmod(box.temp, 0o1777); err != nil {
		return nil, err
	}
	if err := writeBaseFiles(box.inputs); err != nil {
		return nil, err
	}
	return box, writeHostSettings(box.inputs)
}
