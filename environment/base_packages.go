package environment

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// localFolder is where everything lives that does not come from Debian. The layer of Python packages has nothing else.
const localFolder = "usr/local"

// packagesStep installs the Python packages, with the image's own Python, on the root file system of the layer below.
func (b *baseBuild) packagesStep(rootfs step) step {
	key := layerKey([]byte("packages/1"), []byte(rootfs.key), baseFile("requirements.lock"), baseFile("build-requirements.lock"),
		baseFile("packages.sh"), baseFile("compile.py"), baseFile("enter.sh"))
	return step{stage: StagePackages, kind: "packages", key: key, make: func(ctx context.Context, path string) (blobInfo, map[string]string, error) {
		info, err := b.makePackages(ctx, rootfs, path)
		return info, pythonPackages(), err
	}}
}

func (b *baseBuild) makePackages(ctx context.Context, rootfs step, path string) (blobInfo, error) {
	box, err := b.sandbox()
	if err != nil {
		return blobInfo{}, err
	}
	root := filepath.Join(b.temp, "packages")
	if err := os.Mkdir(root, 0o755); err != nil {
		return blobInfo{}, err
	}
	b.reports.detail("unpacking the root file system")
	layer := b.cache.blob(rootfs.kind, rootfs.key)
	if err := box.host(ctx, "tar", "--extract", "--gzip", "--numeric-owner", "--same-permissions", "--file", layer, "--directory", root); err != nil {
		return blobInfo{}, err
	}
	before, err := filesBelow(root, localFolder)
	if err != nil {
		return blobInfo{}, err
	}
	if err := box.chroot(ctx, root, "sh", "/mnt/packages.sh"); err != nil {
		return blobInfo{}, err
	}
	b.reports.detail("packing")
	t := tree{root: root, skip: skipOutside(localFolder, before)}
	info, err := writeLayer(ctx, path, b.reports.written, t.write)
	if err != nil {
		return blobInfo{}, err
	}
	return info, os.RemoveAll(root)
}

// filesBelow lists what is no folder below root/dir, by names relative to root.
func filesBelow(root, dir string) (map[string]bool, error) {
	files := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		files[name] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list files of the layer below: %w", err)
	}
	return files, nil
}

// skipOutside leaves out what is neither in dir nor on the way to it, and the files that were there before.
func skipOutside(dir string, before map[string]bool) func(string, fs.DirEntry) bool {
	return func(name string, _ fs.DirEntry) bool {
		inside := name == dir || strings.HasPrefix(name, dir+"/")
		onTheWay := strings.HasPrefix(dir, name+"/")
		return (!inside && !onTheWay) || before[name]
	}
}

// pythonPackages are the packages of requirements.lock.
func pythonPackages() map[string]string {
	packages := map[string]string{}
	for _, line := range baseLines("requirements.lock") {
		name, rest, found := strings.Cut(line, "==")
		if !found {
			continue
		}
		version, _, _ := strings.Cut(rest, " ")
		packages[name] = version
	}
	return packages
}
