package environment

import (
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// runtimePath is where the image has our binary.
	runtimePath = "usr/local/bin/nomad-promptflow"
	// imageUser is promptflow's uid and gid, as numbers: an engine need not read the image's /etc/passwd to see that it is not root.
	imageUser = "1000:1000"
	imageHome = "/home/promptflow"
	imagePort = "8080/tcp"
)

// labelPrefix begins the names of our own labels.
const labelPrefix = "io.github.nomad-promptflow."

func layerDescriptor(l Layer) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.Digest(l.Digest), Size: l.Size}
}

// imageConfig says how a container of the image runs. It has no times, so that equal layers give an equal image.
func imageConfig(layers []Layer, version string) ocispec.Image {
	image := ocispec.Image{
		Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config: ocispec.ImageConfig{
			User:         imageUser,
			ExposedPorts: map[string]struct{}{imagePort: {}},
			Env: []string{
				"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
				"LANG=C.UTF-8",
				// For engines that are told nothing more than the port; the driver says where to listen.
				"PROMPTFLOW_LISTEN=0.0.0.0:8080",
				// A flow's prints are seen at once in the task's logs.
				"PYTHONUNBUFFERED=1",
			},
			Entrypoint: []string{"/" + runtimePath, "runtime", "serve"},
			WorkingDir: imageHome,
			Labels:     imageLabels(layers, version),
			StopSignal: "SIGTERM",
		},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	for _, layer := range layers {
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, digest.Digest(layer.DiffID))
		image.History = append(image.History, ocispec.History{CreatedBy: "nomad-promptflow environment build-base", Comment: layer.Stage})
	}
	return image
}

func imageManifest(config ocispec.Descriptor, layers []Layer, version string) ocispec.Manifest {
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      config,
		Annotations: imageLabels(layers, version),
	}
	for _, layer := range layers {
		m.Layers = append(m.Layers, layerDescriptor(layer))
	}
	return m
}

// imageLabels says what is in the image, by the well-known names and our own.
func imageLabels(layers []Layer, version string) map[string]string {
	labels := map[string]string{
		ocispec.AnnotationTitle:       "nomad-promptflow base environment",
		ocispec.AnnotationDescription: "Python, prompt flow, its built-in tools and the nomad-promptflow runtime server",
		ocispec.AnnotationLicenses:    "MPL-2.0",
		ocispec.AnnotationSource:      "https://github.com/nomad-promptflow/nomad-promptflow",
	}
	if version != "" {
		labels[ocispec.AnnotationVersion] = version
	}
	for _, layer := range layers {
		for name, version := range layer.Packages {
			switch {
			case name == "python3.11":
				// Debian's version without its own revision: 3.11.2-6+deb12u9 is Python 3.11.2.
				python, _, _ := strings.Cut(version, "-")
				labels[labelPrefix+"python"] = python
			case name == "promptflow" || strings.HasPrefix(name, "promptflow-"):
				labels[labelPrefix+name] = version
			}
		}
	}
	return labels
}
