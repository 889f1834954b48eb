package driver

import (
	"io"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
)

// ImageRequest asks for an image.
type ImageRequest struct {
	// Name in the engine's image store. Without a Source it is also what a registry is asked for.
	Name   string
	Policy PullPolicy
	// Platform is the one that is wanted, such as "linux/arm64"; empty for the machine's own.
	Platform string
	// Auth are the task's own credentials.
	Auth registry.TaskAuth
	// Source, when there is one, is asked for Ref in a registry's stead.
	Source ImageSource
	Ref    string
	// Registry is the reference that a registry is asked for when Source does not have Ref; empty for none.
	Registry string
	// Archive, when there is one, has the image in it. Neither Name nor Policy matter then.
	Archive *ImageArchive
	// Claim is told each name in the image store that the request relies on, before it does. It may be nil.
	Claim func(name string)
	// Progress is called when something must be fetched or unpacked, now and then while that goes on, and when it is done. It may
	// be nil.
	Progress func(ImageProgress)
}

// ImageArchive is an archive with images in it: what docker save writes, or an OCI layout in a tar; also compressed.
type ImageArchive struct {
	// Name is for messages.
	Name    string
	Content io.Reader
	// Image is the name of the wanted one; empty means the only one.
	Image string
}

// FetchStage says what a report on the making of an image is about.
type FetchStage int

// The stages.
const (
	FetchBegins FetchStage = iota
	FetchGoesOn
	FetchEnds
)

// ImageProgress is a report on how an image is made ready.
type ImageProgress struct {
	Stage  FetchStage
	Action string // "import", "pull", "unpack" or "load"
	Digest string
	// Waiting means that other images come first.
	Waiting bool
	// Layers and Bytes, compressed, are of the whole image; 0 while that is not known.
	Layers, LayersDone int
	Bytes, BytesDone   int64
	Speed              int64 // bytes that came per second
	Took               time.Duration
}

// Image is an image that is ready to start containers from.
type Image struct {
	Name   string
	Digest string
	Config ocispec.ImageConfig
	// RootFS is the engine's name of the image's unpacked file system.
	RootFS string
	// Platform is what the image says it is for. Foreign means that this machine cannot run that by itself.
	Platform string
	Foreign  bool
}
