package driver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/driver/registry"
	"github.com/nomad-promptflow/nomad-promptflow/environment"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// EngineConfig is what an engine needs of the configuration.
type EngineConfig struct {
	ContainerdConfig
	Registries registry.Config
	// PullConcurrency is how many images are fetched and unpacked at once.
	PullConcurrency int
	// ActivityTimeout is how long a fetch goes on from which nothing comes.
	ActivityTimeout time.Duration
	// ReportInterval is when a fetch that goes on is first reported.
	ReportInterval time.Duration
}

const reportFetch = 10 * time.Second

func (c *PluginConfig) engine() EngineConfig {
	return EngineConfig{
		ContainerdConfig: c.Containerd, Registries: c.registries(),
		PullConcurrency: c.PullConcurrency, ActivityTimeout: c.activityTimeout,
		ReportInterval: reportFetch,
	}
}

func (c *PluginConfig) registries() registry.Config {
	hosts := make(map[string]registry.Host, len(c.Registries))
	for name, block := range c.Registries {
		hosts[name] = registry.Host(block)
	}
	return registry.Config{Hosts: hosts, AuthFile: c.Auth.Config, AuthHelper: c.Auth.Helper}
}

// ensureImage makes the task's image ready: its environment's, the one it names, or one of the archive it brings.
func (d *Driver) ensureImage(
	ctx context.Context, engine Engine, pluginConfig PluginConfig, config *plugin.TaskConfig, options TaskConfig,
) (*Image, error) {
	timeout := options.pullTimeout(pluginConfig)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	what, request, closeArchive, err := imageRequest(pluginConfig, config, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer closeArchive()
	request.Claim = func(name string) { d.images.claim(config.ID, name) }
	request.Progress = func(progress ImageProgress) { d.reportProgress(config, what, progress) }
	image, err := engine.EnsureImage(ctx, request)
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return nil, fmt.Errorf("%s: image_pull_timeout of %s is over: %w", what, timeout, err)
	default:
		return nil, fmt.Errorf("%s: %w", what, imageHint(err, pluginConfig, options))
	}
	d.warnForeign(config, what, image)
	return image, nil
}

// imageRequest asks for what the options name. The archive, if that is it, stays open until it is closed.
func imageRequest(
	pluginConfig PluginConfig, config *plugin.TaskConfig, options TaskConfig,
) (what string, request ImageRequest, closeArchive func(), err error) {
	closeArchive = func() {}
	request = ImageRequest{Name: options.Image, Policy: options.ImagePullPolicy}
	switch {
	case options.Load != "":
		what = "image archive " + options.Load
		file, err := openArchive(config, options.Load)
		if err != nil {
			return what, request, closeArchive, err
		}
		closeArchive = func() { _ = file.Close() }
		request.Archive = &ImageArchive{Name: options.Load, Content: file, Image: options.Image}
	case options.Environment != "":
		what = "environment " + options.Environment
		if request, err = environmentRequest(pluginConfig, options); err != nil {
			return what, request, closeArchive, err
		}
	default:
		what = "image " + options.Image
	}
	request.Platform = options.Platform
	request.Auth = registry.TaskAuth{
		Username: options.Auth.Username, Password: options.Auth.Password, ServerAddress: options.Auth.ServerAddress,
		SoftFail: options.AuthSoftFail,
	}
	return what, request, closeArchive, nil
}

// environmentRequest asks for an environment from the layout that holds them, and from the repository for those that it does not.
func environmentRequest(pluginConfig PluginConfig, options TaskConfig) (ImageRequest, error) {
	parsed, err := environment.Parse(options.Environment)
	if err != nil {
		return ImageRequest{}, err
	}
	request := ImageRequest{
		Name: parsed.ImageName(), Policy: options.ImagePullPolicy,
		Source: openEnvironments(pluginConfig.Environments), Ref: parsed.InLayout(),
	}
	if pluginConfig.EnvironmentRepository != "" {
		request.Registry = parsed.In(pluginConfig.EnvironmentRepository)
	}
	return request, nil
}

// imageHint adds what to do about an image that is nowhere.
func imageHint(err error, pluginConfig PluginConfig, options TaskConfig) error {
	switch {
	case !errors.Is(err, ErrNoImage) || options.Environment == "":
		return err
	case pluginConfig.EnvironmentRepository != "":
		return fmt.Errorf("%w: publish it to %s or %s, or name another",
			err, pluginConfig.EnvironmentRepository, pluginConfig.Environments)
	case options.Environment == pluginConfig.DefaultEnvironment:
		return fmt.Errorf("%w: make it with: nomad-promptflow environment build-base (environments are in %s)",
			err, pluginConfig.Environments)
	}
	return fmt.Errorf("%w: publish it to %s, or name another", err, pluginConfig.Environments)
}

// warnForeign tells of an image that needs an emulator to run. Whether the node has one is the kernel's to know.
func (d *Driver) warnForeign(config *plugin.TaskConfig, what string, image *Image) {
	if !image.Foreign {
		return
	}
	d.emit(config, fmt.Sprintf("%s is for %s and this node is %s/%s: it runs only where binfmt_misc has an emulator for it, and fails "+
		"with \"exec format error\" elsewhere", what, image.Platform, runtime.GOOS, runtime.GOARCH), nil)
}

func (d *Driver) reportProgress(config *plugin.TaskConfig, what string, progress ImageProgress) {
	action, took := progressTitle[progress.Action], progress.Took.Round(10*time.Millisecond)
	annotations := map[string]string{
		"image_digest": progress.Digest, "bytes": fmt.Sprint(progress.BytesDone), "layers": fmt.Sprint(progress.LayersDone),
	}
	switch progress.Stage {
	case FetchBegins:
		d.logger.Info("making image ready", "task_id", config.ID, "image", what, "action", progress.Action)
		d.emit(config, fmt.Sprintf("%s of %s started", action, what), map[string]string{"image_digest": progress.Digest})
	case FetchGoesOn:
		d.emit(config, fmt.Sprintf("%s of %s: %s", action, what, progress.describe()), annotations)
	case FetchEnds:
		d.logger.Info("image is ready", "task_id", config.ID, "image", what, "action", progress.Action,
			"layers", progress.Layers, "bytes", progress.Bytes, "took", took)
		d.emit(config, fmt.Sprintf("%s of %s done: %s in %d layers, %s",
			action, what, megabytes(progress.Bytes), progress.Layers, took), annotations)
	}
}

var progressTitle = map[string]string{"import": "Import", "pull": "Pull", "unpack": "Unpack", "load": "Load"}

// describe says how far a fetch is.
func (p ImageProgress) describe() string {
	switch {
	case p.Waiting:
		return "waits for other images to be fetched"
	case p.Layers == 0:
		return fmt.Sprintf("%s, %s/s", megabytes(p.BytesDone), megabytes(p.Speed))
	case p.LayersDone == p.Layers:
		return fmt.Sprintf("all %d layers (%s) are here and are unpacked", p.Layers, megabytes(p.Bytes))
	}
	return fmt.Sprintf("%d of %d layers, %s of %s, %s/s",
		p.LayersDone, p.Layers, megabytes(p.BytesDone), megabytes(p.Bytes), megabytes(p.Speed))
}

func megabytes(bytes int64) string {
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
