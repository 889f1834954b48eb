package environment

import (
	"context"
	"time"
)

// DefaultTag is the tag that the base image gets in the layout.
const DefaultTag = "default:latest"

// The stages of a build, in their order, as events name them.
const (
	StageRootFS   = "root file system"
	StagePackages = "python packages"
	StageRuntime  = "runtime"
	StageImage    = "image"
	StageArchive  = "archive"
)

// BaseOptions says what the base image is made from and where it goes. Only Layout is needed.
type BaseOptions struct {
	// Layout is the folder of the OCI layout that gets the image under the tag [DefaultTag]. It is made when missing.
	Layout string
	// Archive, when not empty, names a file that gets the image as an archive which any container engine reads.
	Archive string
	// Binary is the statically linked nomad-promptflow that goes into the image; the running executable when empty.
	Binary string
	// Cache is the folder of finished layers, and where they are made; the folder nomad-promptflow/base in the user's cache folder when
	// empty.
	Cache string
	// Mirror is where Debian's packages are fetched from, the archive and its security updates; Debian's own when empty. It leaves
	// no trace in the image.
	Mirror Mirror
	// Version is nomad-promptflow's own version, for the image's labels.
	Version string
	// Refresh builds every layer again, so that security updates of Debian get in, instead of taking finished ones.
	Refresh bool
	// Progress, when not nil, is told what happens. It is called from one goroutine at a time and must not block.
	Progress func(Event)
}

// Mirror is where Debian packages come from.
type Mirror struct {
	// Archive is the URL of the Debian archive, http://deb.debian.org/debian when empty.
	Archive string
	// Security is the URL of the security archive, http://deb.debian.org/debian-security when empty.
	Security string
}

// Event says how far a build is, for a person.
type Event struct {
	// Stage is one of the Stage constants.
	Stage string
	// Detail is what is being done now, or, when Done, what came out.
	Detail string
	// Done is set on the last event of a stage.
	Done bool
	// Cached is set on the last event of a stage that had nothing to do.
	Cached bool
	// Bytes is how many bytes the stage has made so far, uncompressed; 0 when it is not known yet.
	Bytes int64
	// Elapsed is how long the stage has been running.
	Elapsed time.Duration
}

// Result says what a build made.
type Result struct {
	// Layout and Tag say where the image is; Name is its name as an image reference, see [ImageName].
	Layout string `json:"layout"`
	Tag    string `json:"tag"`
	Name   string `json:"name"`
	// Archive is the archive file, empty when none was asked for.
	Archive string `json:"archive,omitempty"`
	// Digest is the digest of the image's manifest.
	Digest string `json:"digest"`
	// Layers are the image's layers from the ground up.
	Layers []Layer `json:"layers"`
	// Size is the image's size in bytes as stored (compressed), Uncompressed its size once unpacked.
	Size         int64 `json:"size"`
	Uncompressed int64 `json:"uncompressed"`
	// Seconds is how long the whole build took.
	Seconds float64 `json:"seconds"`
}

// Layer is one layer of a built image.
type Layer struct {
	// Stage is the stage that makes the layer.
	Stage string `json:"stage"`
	// Key names the layer's inputs: the same key means the same content.
	Key string `json:"key"`
	// Digest is that of the compressed layer, DiffID that of the uncompressed one.
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	// Size and Uncompressed are in bytes.
	Size         int64 `json:"size"`
	Uncompressed int64 `json:"uncompressed"`
	// Packages are the Debian or Python packages that the layer brings, with their versions.
	Packages map[string]string `json:"packages,omitempty"`
	// Cached says that the layer was taken from the cache; Made is when it was built.
	Cached bool      `json:"cached"`
	Made   time.Time `json:"made"`
	// Seconds is how long getting the layer took in this build.
	Seconds float64 `json:"seconds"`
}

// BuildBase builds the base image into the layout of o, from cached layers where their inputs did not change.
//
// It needs root (for mmdebstrap and chroot), mmdebstrap, and, when a layer is not cached, Debian's and Python's package indexes. A
// failed or cancelled build leaves the layout as it was and no mount, process or temporary folder.
func BuildBase(ctx context.Context, o BaseOptions) (*Result, error) {
	b, err := newBaseBuild(o)
	if err != nil {
		return nil, err
	}
	return b.run(ctx)
}
