package engine

import (
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shoenig/test"
	"github.com/shoenig/test/must"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	entry := func(content, full, ref string) ocispec.Descriptor {
		desc := ocispec.Descriptor{Digest: digest.FromString(content), Annotations: map[string]string{}}
		if full != "" {
			desc.Annotations[images.AnnotationImageName] = full
		}
		if ref != "" {
			desc.Annotations[ocispec.AnnotationRefName] = ref
		}
		return desc
	}
	saved := []ocispec.Descriptor{entry("a", "docker.io/library/busybox:1", "1"), entry("b", "reg.example:5000/team/nlp:2", "2")}
	layout := []ocispec.Descriptor{entry("a", "", "one"), entry("b", "", "reg.example/team/nlp:2")}
	nameless := []ocispec.Descriptor{entry("a", "", "")}
	for _, c := range []struct {
		name  string
		index []ocispec.Descriptor
		image string
		want  string // the content, or with a "!" part of the error
	}{
		{"nothing in it", nil, "", "!the archive has no image"},
		{"the only one", nameless, "", "a"},
		{"the only one, twice tagged", []ocispec.Descriptor{entry("a", "x:1", ""), entry("a", "x:2", "")}, "", "a"},
		{"one of two", saved, "", "!has 2 images: name one of them with image: docker.io/library/busybox:1, reg.example:5000/team/nlp:2"},
		{"short name", saved, "busybox:1", "a"},
		{"whole name", saved, "docker.io/library/busybox:1", "a"},
		{"another tag", saved, "busybox:2", "!no image \"busybox:2\""},
		{"latest is another tag", saved, "busybox", "!no image \"busybox\""},
		{"a tag of another image is no name", saved, "busybox:2", "!no image"},
		{"of a registry", saved, "reg.example:5000/team/nlp:2", "b"},
		{"by digest", saved, "busybox@" + digest.FromString("a").String(), "a"},
		{"by a digest that is not there", saved, "busybox@" + digest.FromString("c").String(), "!no image"},
		{"layout's tag", layout, "one", "a"},
		{"layout's tag, with a name", layout, "anything:one", "a"},
		{"layout's whole name", layout, "reg.example/team/nlp:2", "b"},
		{"no reference", layout, "No Reference", "!no image \"No Reference\""},
		{"named, but nothing has a name", nameless, "busybox", "!leave image out"},
		{"ambiguous", []ocispec.Descriptor{entry("a", "", "x"), entry("b", "", "x")}, "x", "!2 images named \"x\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			desc, err := choose(ocispec.Index{Manifests: c.index}, c.image)
			if c.want[0] == '!' {
				must.ErrorContains(t, err, c.want[1:])
				return
			}
			must.NoError(t, err)
			test.Eq(t, digest.FromString(c.want), desc.Digest)
			test.MapEmpty(t, desc.Annotations)
		})
	}
}

func TestParseImage(t *testing.T) {
	t.Parallel()
	const pinned = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, want := range map[string]string{
		"busybox":                           "docker.io/library/busybox:latest",
		"busybox:1":                         "docker.io/library/busybox:1",
		"team/nlp":                          "docker.io/team/nlp:latest",
		"reg.example/nlp:1":                 "reg.example/nlp:1",
		"reg.example:5000/team/nlp":         "reg.example:5000/team/nlp:latest",
		"localhost/nlp":                     "localhost/nlp:latest",
		"busybox" + pinned:                  "docker.io/library/busybox" + pinned,
		"busybox:1" + pinned:                "docker.io/library/busybox" + pinned,
		"https://reg.example/nlp:1":         "reg.example/nlp:1",
		"https://index.docker.io/team/nlp":  "docker.io/team/nlp:latest",
		"127.0.0.1:5000/team/nlp" + pinned:  "127.0.0.1:5000/team/nlp" + pinned,
		"registry-1.docker.io/library/nlp1": "registry-1.docker.io/library/nlp1:latest",
	} {
		got, err := normalName(name)
		must.NoError(t, err)
		test.Eq(t, want, got)
	}
	for _, name := range []string{"", "Busybox", "busy box", "reg.example/", "busybox:", "busybox@sha256:12", ":1", "-x"} {
		_, err := normalName(name)
		must.ErrorContains(t, err, "not an image reference", must.Sprint(name))
	}
}

func TestPlatform(t *testing.T) {
	t.Parallel()
	arm, err := parsePlatform("linux/arm64/v8")
	must.NoError(t, err)
	test.Eq(t, "linux/arm64", arm.String())
	must.NoError(t, arm.check(ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}))
	must.NoError(t, arm.check(ocispec.Platform{}), must.Sprint("an old image does not say"))
	must.EqError(t, arm.check(ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}),
		"it is for linux/arm/v7 only, not for linux/arm64: name an image for that, or another platform")
	must.ErrorContains(t, hostPlatform().check(ocispec.Platform{OS: "plan9", Architecture: "mips"}), "or set platform")
	_, err = parsePlatform("?")
	must.Error(t, err)
}
