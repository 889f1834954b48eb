package driver_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// file puts a file below the allocation's folder.
func (a *agentTask) file(name string, content []byte) *agentTask {
	a.node.t.Helper()
	path := filepath.Join(a.AllocDir, name)
	must.NoError(a.node.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must.NoError(a.node.t, os.WriteFile(path, content, 0o644))
	return a
}

func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := w.Write(content)
	must.NoError(t, err)
	must.NoError(t, w.Close())
	return packed.Bytes()
}

func TestConformance_createImageArchives(t *testing.T) {
	m := newMachine(t)
	n := m.launch(t, keepNothing)
	one := harness.BusyboxLayout(t, says("team/image:1", "one"))
	two := harness.BusyboxLayout(t, says("team/image:1", "one"), says("team/image:2", "two"))
	tags := harness.BusyboxLayout(t, says("1", "one"), says("2", "two"))
	dockerOne, dockerTwo := harness.DockerArchive(t, one), harness.DockerArchive(t, two)
	ociOne, ociTags := harness.OCIArchive(t, one), harness.OCIArchive(t, tags)
	for _, c := range []struct {
		name    string
		archive []byte
		config  string
		want    string // what it prints, or with a "!" part of the error
	}{
		{"docker, the only image", dockerOne, "", "one"},
		{"docker, by name", dockerTwo, `image = "team/image:2"`, "two"},
		{"docker, by its whole name", dockerTwo, `image = "docker.io/team/image:2"`, "two"},
		{"docker, compressed", compressed(t, dockerTwo), `image = "team/image:1"`, "one"},
		{"OCI, the only image", ociOne, "", "one"},
		{"OCI, by name", ociOne, `image = "team/image:1"`, "one"},
		{"OCI, by tag", ociTags, `image = "team/image:2"`, "two"},
		{"OCI, compressed", compressed(t, ociTags), `image = "whatever:1"`, "one"},
		{"several images", dockerTwo, "", "!name one of them with image: docker.io/team/image:1, docker.io/team/image:2"},
		{"no such image", dockerTwo, `image = "team/image:3"`, "!no image \"team/image:3\": it has docker.io/team/image:1, docker.io/team/image:2"},
		{"for another platform", dockerOne, `platform = "linux/s390x"`, "!only, not for linux/s390x"},
		{"no archive", []byte("hello"), "", "!it is no whole image archive"},
		{"empty", nil, "", "!it is no whole image archive"},
		{"cut off", dockerOne[:len(dockerOne)/2], "", "!it is no whole image archive"},
		{"cut off, compressed", compressed(t, dockerOne)[:1<<18], "", "!it is no whole image archive"},
		{"OCI, cut off", ociOne[:len(ociOne)/2], "", "!it is no whole image archive"},
		{"another kind of tar", harness.OCIArchive(t, filepath.Dir(harness.NewAuthority(t).File)), "", "!it is no whole image archive"},
		{"OCI, a blob is not what it says", flip(ociOne, len(ociOne)/3), "", "!it is no whole image archive"},
		{"docker, a layer is not what it says", flip(dockerOne, len(dockerOne)/3), "", "!the image itself is broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			task := n.task("load = \"local/image.tar\"\n"+c.config).file("web/local/image.tar", c.archive)
			if wanted, isError := strings.CutPrefix(c.want, "!"); isError {
				task.fails(false, "image archive local/image.tar", wanted)
				return
			}
			task.runs(c.want)
			eventually(t, "the image is gone again", func() bool { return len(m.holdings(t)) == 0 })
		})
	}
}

// flip breaks one bit of a copy.
func flip(content []byte, at int) []byte {
	broken := bytes.Clone(content)
	broken[at] ^= 1
	return broken
}

func TestConformance_Start_LoadImage(t *testing.T) {
	m := newMachine(t)
	n := m.launch(t, "")
	archive := harness.DockerArchive(t, harness.BusyboxLayout(t, says("team/image:1", "loaded")))

	for path, where := range map[string]string{
		"local/image.tar": "web/local/image.tar", "/local/sub/image.tar": "web/local/sub/image.tar",
		"image.tar": "web/local/image.tar", "/alloc/data/image.tar": "alloc/data/image.tar", "alloc/data/image.tar": "alloc/data/image.tar",
	} {
		n.task("image = \"team/image:1\"\nload = \""+path+"\"").file(where, archive).runs("loaded")
	}
	task := n.task(`load = "local/none.tar"`)
	task.fails(false, "image archive local/none.tar", "no such file")
	task = n.task(`load = "local"`)
	task.fails(false, "not a plain file")

	outside := filepath.Join(t.TempDir(), "image.tar")
	must.NoError(t, os.WriteFile(outside, archive, 0o600))
	for _, path := range []string{outside, "../image.tar", "local/../../image.tar", "/alloc/../web/private/image.tar", "/etc/passwd", "/"} {
		n.task(`load = "`+path+`"`).fails(false, "must be a file below the task's local folder or /alloc")
	}
	link := n.task(`load = "local/link.tar"`)
	must.NoError(t, os.Symlink(outside, filepath.Join(link.AllocDir, "web/local/link.tar")))
	link.fails(false, "not a plain file")
	folder := n.task(`load = "/alloc/data/link/image.tar"`)
	must.NoError(t, os.Symlink(filepath.Dir(outside), filepath.Join(folder.AllocDir, "alloc/data/link")))
	folder.fails(false, "no link")
	n.task("load = \"local/image.tar\"\nenvironment = \"default\"").fails(false, "environment and load")

	// An archive says it has an image that a registry has; for others it is still the registry's.
	hub := newHub(t, harness.RegistryOptions{}, says("1", "registry's"))
	evil := harness.DockerArchive(t, harness.BusyboxLayout(t, says(hub.Image("team/image:1"), "archive's")))
	n.task(imageTask(hub.Image("team/image:1"), `load = "image.tar"`)).file("web/local/image.tar", evil).runs("archive's")
	for _, name := range m.images(t) {
		test.StrHasPrefix(t, "promptflow.local/loaded@sha256:", name)
	}
	n.task(imageTask(hub.Image("team/image:1"))).runs("registry's")
}
