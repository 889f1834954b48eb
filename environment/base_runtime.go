package environment

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
)

// elfMachines are the ELF names of Go's architectures that Debian has Python wheels for.
var elfMachines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkBinary refuses a binary that cannot run in the image, or in a custom one with another C library.
func checkBinary(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("binary %s: %w: it must be a nomad-promptflow for Linux", file, err)
	}
	defer func() { _ = f.Close() }()
	if want := elfMachines[runtime.GOARCH]; f.Machine != want {
		return fmt.Errorf("binary %s: it is built for %s, the image is for %s: build it with GOARCH=%s", file, f.Machine, want, runtime.GOARCH)
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("binary %s: %w", file, err)
	}
	interpreted := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
	if len(libraries) > 0 || interpreted {
		return fmt.Errorf("binary %s: it is dynamically linked (%s): build it with CGO_ENABLED=0", file, strings.Join(libraries, ", "))
	}
	return nil
}

// runtimeStep packs our binary.
func (b *baseBuild) runtimeStep() (step, error) {
	sum, err := fileDigest(b.o.Binary)
	if err != nil {
		return step{}, fmt.Errorf("read binary: %w", err)
	}
	return step{
		stage: StageRuntime, kind: "runtime", key: layerKey([]byte("runtime/1"), []byte(sourceDate.String()), []byte(sum)),
		make: func(ctx context.Context, file string) (blobInfo, map[string]string, error) {
			info, err := b.makeRuntime(ctx, file, sum)
			return info, nil, err
		},
	}, nil
}

func (b *baseBuild) makeRuntime(ctx context.Context, file, sum string) (blobInfo, error) {
	return writeLayer(ctx, file, b.reports.written, func(tw *tar.Writer) error {
		packed := sha256.New()
		if err := writeExecutable(tw, runtimePath, b.o.Binary, packed); err != nil {
			return err
		}
		if hex.EncodeToString(packed.Sum(nil)) != sum {
			return fmt.Errorf("binary %s was replaced while it was packed: build again", b.o.Binary)
		}
		return nil
	})
}

// writeExecutable writes a file and the folders on the way to it, so that no engine has to guess their modes. The content goes to
// seen as well.
func writeExecutable(tw *tar.Writer, name, file string, seen io.Writer) error {
	dir := ""
	for _, part := range strings.Split(path.Dir(name), "/") {
		dir += part + "/"
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: sourceDate}); err != nil {
			return err
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: info.Size(), ModTime: sourceDate}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	return copyFile(io.MultiWriter(tw, seen), file)
}
