package store

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
	"golang.org/x/sys/unix"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

func TestAFullDiskLeavesTheLayoutAsItWas(t *testing.T) {
	harness.Integration(t)
	t.Parallel()
	disk := t.TempDir()
	must.NoError(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"))
	t.Cleanup(func() { must.NoError(t, unix.Unmount(disk, 0)) })
	l, err := CreateLayout(filepath.Join(disk, "layout"))
	must.NoError(t, err)
	must.NoError(t, l.Tag(t.Context(), pushImage(t, l, "small"), "x"))
	before := blobFiles(t, l)

	big := bytes.Repeat([]byte{1}, 1<<20)
	err = l.Push(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(big), Size: int64(len(big))}, bytes.NewReader(big))
	must.ErrorIs(t, err, unix.ENOSPC)
	test.ErrorContains(t, err, "is full; make room and try again")
	test.Eq(t, before, blobFiles(t, l))
	_, err = l.closure(t.Context(), mustResolve(t, l, "x"))
	test.NoError(t, err)
}
