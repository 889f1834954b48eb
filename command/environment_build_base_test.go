package command

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/shoenig/test"

	"github.com/nomad-promptflow/nomad-promptflow/environment"
)

func TestBuildBase_fails_before_it_makes_anything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	layout := filepath.Join(dir, "environments")
	code, stdout, stderr := invoke("environment", "build-base", "-environments", layout, "-cache", filepath.Join(dir, "cache"), "-binary", filepath.Join(dir, "none"))
	test.Eq(t, exitFailure, code)
	test.Eq(t, "", stdout)
	test.StrContains(t, stderr, filepath.Join(dir, "none"))
	test.DirNotExists(t, layout)
}

func TestPrintResult_of_a_build(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &buildBaseCommand{meta: meta{stdout: &out, stderr: io.Discard}}
	digest := "sha256:0123456789abcdef0123456789abcdef"
	c.printResult(&environment.Result{
		Layout: "/var/lib/x", Tag: "default:latest", Name: "example/base", Archive: "/tmp/base.tar", Digest: digest, Size: 2_000_000, Uncompressed: 5_500_000, Seconds: 3.25,
		Layers: []environment.Layer{
			{Stage: "rootfs", Digest: digest, Size: 1_000_000, Uncompressed: 3_000_000, Cached: true, Seconds: 0.1},
			{Stage: "python", Digest: digest, Size: 1_000_000, Uncompressed: 2_500_000, Seconds: 3},
		},
	})
	test.Eq(t, `LAYER   DIGEST               STORED  UNPACKED  TIME
rootfs  sha256:0123456789ab  1.0 MB  3.0 MB    cached
python  sha256:0123456789ab  1.0 MB  2.5 MB    3.0 s
image   sha256:0123456789ab  2.0 MB  5.5 MB    3.2 s

example/base is in /var/lib/x as default:latest
archive: /tmp/base.tar
`, out.String())
}
