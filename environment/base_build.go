package environment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/nomad-promptflow/nomad-promptflow/store"
)

// baseBuild is one run of [BuildBase].
type baseBuild struct {
	o       BaseOptions
	started time.Time
	layout  *store.Layout
	cache   *layerCache
	temp    string
	reports *reporter
}

// step makes one layer.
type step struct {
	stage string
	// kind begins the layer's names in the cache, key is that of its inputs.
	kind, key string
	// make writes the layer to path and returns what it is and which packages it brings.
	make func(ctx context.Context, path string) (blobInfo, map[string]string, error)
}

func newBaseBuild(o BaseOptions) (*baseBuild, error) {
	if o.Layout == "" {
		return nil, errors.New("build base image: no layout folder is given")
	}
	if o.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("build base image: find the cache folder: %w: name one", err)
		}
		o.Cache = filepath.Join(dir, "nomad-promptflow", "base")
	}
	if o.Binary == "" {
		binary, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("build base image: find the running executable: %w", err)
		}
		o.Binary = binary
	}
	o.Mirror = o.Mirror.orDebian()
	return &baseBuild{o: o, started: time.Now(), reports: &reporter{to: o.Progress}}, nil
}

func (b *baseBuild) run(ctx context.Context) (result *Result, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("build base image: %w", advise(err, b.o.Cache))
		}
	}()
	if err := checkBinary(b.o.Binary); err != nil {
		return nil, err
	}
	if b.layout, err = store.CreateLayout(b.o.Layout); err != nil {
		return nil, err
	}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	layers, err := b.layers(ctx)
	if err != nil {
		return nil, err
	}
	return b.finish(ctx, layers)
}

func (b *baseBuild) open(ctx context.Context) (err error) {
	b.reports.begin(StageRootFS)
	b.cache, err = openCache(ctx, b.o.Cache, func() { b.reports.detail("waiting for another build on this machine") })
	if err != nil {
		return err
	}
	if b.temp, err = b.cache.temp(); err != nil {
		return errors.Join(err, b.cache.close())
	}
	return nil
}

func (b *baseBuild) close() error {
	return errors.Join(os.RemoveAll(b.temp), b.cache.close())
}

// layers gets the three layers, from the ground up, and stores them in the layout.
func (b *baseBuild) layers(ctx context.Context) ([]Layer, error) {
	rootfs, err := b.rootfsStep(ctx)
	if err != nil {
		return nil, err
	}
	packages := b.packagesStep(rootfs)
	binary, err := b.runtimeStep()
	if err != nil {
		return nil, err
	}
	var layers []Layer
	for _, s := range []step{rootfs, packages, binary} {
		layer, err := b.layer(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.stage, err)
		}
		layers = append(layers, layer)
	}
	return layers, nil
}

// layer takes a layer from the cache, or makes it, and puts it into the layout.
func (b *baseBuild) layer(ctx context.Context, s step) (Layer, error) {
	b.reports.begin(s.stage)
	started := time.Now()
	layer, err := b.obtain(ctx, s)
	if err != nil {
		return Layer{}, err
	}
	err = b.push(ctx, s, layer)
	if errors.Is(err, store.ErrCorrupt) && layer.Cached {
		// The disk damaged what the cache had; it is made again.
		if err := b.cache.drop(s.kind, s.key); err != nil {
			return Layer{}, err
		}
		if layer, err = b.make(ctx, s); err != nil {
			return Layer{}, err
		}
		err = b.push(ctx, s, layer)
	}
	if err != nil {
		return Layer{}, err
	}
	layer.Seconds = time.Since(started).Seconds()
	b.reports.done(describeLayer(layer), layer.Cached, layer.Uncompressed)
	return *layer, nil
}

func (b *baseBuild) obtain(ctx context.Context, s step) (*Layer, error) {
	if !b.o.Refresh {
		if layer := b.cache.get(s.kind, s.key); layer != nil {
			layer.Cached = true
			return layer, nil
		}
	}
	return b.make(ctx, s)
}

func (b *baseBuild) make(ctx context.Context, s step) (*Layer, error) {
	path := filepath.Join(b.temp, s.kind+".tar.gz")
	info, packages, err := s.make(ctx, path)
	if err != nil {
		return nil, err
	}
	layer := Layer{
		Stage: s.stage, Key: s.key, Digest: info.digest, DiffID: info.diffID, Size: info.size, Uncompressed: info.uncompressed,
		Packages: packages, Made: time.Now().UTC().Truncate(time.Second),
	}
	if err := b.cache.put(s.kind, layer, path); err != nil {
		return nil, fmt.Errorf("put the layer into the build cache: %w", err)
	}
	return &layer, nil
}

func (b *baseBuild) push(ctx context.Context, s step, layer *Layer) error {
	b.reports.detail("storing the layer")
	f, err := os.Open(b.cache.blob(s.kind, s.key))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return b.layout.Push(ctx, layerDescriptor(*layer), f)
}

// finish writes config and manifest, and only then gives the image its tag.
func (b *baseBuild) finish(ctx context.Context, layers []Layer) (*Result, error) {
	b.reports.begin(StageImage)
	manifest, err := b.writeManifest(ctx, layers)
	if err != nil {
		return nil, err
	}
	if err := b.replaceImage(ctx, manifest); err != nil {
		return nil, err
	}
	name, err := ImageName(DefaultTag)
	if err != nil {
		return nil, err
	}
	result := &Result{
		Layout: b.layout.Dir(), Tag: DefaultTag, Name: name, Archive: b.o.Archive, Digest: manifest.Digest.String(), Layers: layers,
	}
	for _, layer := range layers {
		result.Size += layer.Size
		result.Uncompressed += layer.Uncompressed
	}
	b.reports.done(fmt.Sprintf("%s %s, %s unpacked", name, manifest.Digest, megabytes(result.Uncompressed)), false, result.Uncompressed)
	if err := b.export(ctx, name); err != nil {
		return nil, err
	}
	result.Seconds = time.Since(b.started).Seconds()
	return result, nil
}

// replaceImage gives the image its tag and removes what only the image before needed; else each new binary would leave one behind.
func (b *baseBuild) replaceImage(ctx context.Context, manifest ocispec.Descriptor) error {
	before, err := b.layout.Resolve(ctx, DefaultTag)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := b.layout.Tag(ctx, manifest, DefaultTag); err != nil {
		return err
	}
	if before.Digest == "" || before.Digest == manifest.Digest {
		return nil
	}
	// An image before that is not whole is not this build's trouble: its tag is gone.
	if err := b.layout.Remove(ctx, before); err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrCorrupt) {
		return err
	}
	return nil
}

func (b *baseBuild) writeManifest(ctx context.Context, layers []Layer) (ocispec.Descriptor, error) {
	config, err := json.Marshal(imageConfig(layers, b.o.Version))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := b.layout.PushBytes(ctx, ocispec.MediaTypeImageConfig, config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest, err := json.Marshal(imageManifest(desc, layers, b.o.Version))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.layout.PushBytes(ctx, ocispec.MediaTypeImageManifest, manifest)
}

// export writes the archive beside its place and moves it there when it is whole.
func (b *baseBuild) export(ctx context.Context, name string) (err error) {
	if b.o.Archive == "" {
		return nil
	}
	b.reports.begin(StageArchive)
	f, err := os.CreateTemp(filepath.Dir(b.o.Archive), "."+filepath.Base(b.o.Archive)+"-*")
	if err != nil {
		return fmt.Errorf("write archive %s: %w", b.o.Archive, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write archive %s: %w", b.o.Archive, err)
		}
	}()
	if err := b.layout.Export(ctx, DefaultTag, f, store.ExportName(name)); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), b.o.Archive); err != nil {
		return err
	}
	b.reports.done(fmt.Sprintf("%s, %s", b.o.Archive, megabytes(info.Size())), false, info.Size())
	return nil
}
