package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/environment"
	"github.com/nomad-promptflow/nomad-promptflow/plugin"
)

// ensureImage makes the task's image ready: its environment's, or the one it names.
func (d *Driver) ensureImage(
	ctx context.Context, engine Engine, pluginConfig PluginConfig, config *plugin.TaskConfig, options TaskConfig,
) (*Image, error) {
	ctx, cancel := context.WithTimeout(ctx, options.pullTimeout(pluginConfig))
	defer cancel()
	request := ImageRequest{Name: options.Image, Policy: options.ImagePullPolicy}
	what := "image " + options.Image
	if options.Environment != "" {
		what = "environment " + options.Environment
		var err error
		if request, err = environmentRequest(pluginConfig, options); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
	}
	request.Progress = func(progress ImageProgress) { d.reportProgress(config, what, progress) }
	image, err := engine.EnsureImage(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, imageHint(err, pluginConfig, options))
	}
	return image, nil
}

// environmentRequest asks for an environment from the layout that holds them.
func environmentRequest(pluginConfig PluginConfig, options TaskConfig) (ImageRequest, error) {
	name, err := environment.ImageName(options.Environment)
	if err != nil {
		return ImageRequest{}, err
	}
	tag, err := environment.Tag(options.Environment)
	if err != nil {
		return ImageRequest{}, err
	}
	return ImageRequest{
		Name: name, Policy: options.ImagePullPolicy,
		Source: openEnvironments(pluginConfig.Environments), Ref: tag,
	}, nil
}

// imageHint adds what to do about an image that is nowhere.
func imageHint(err error, pluginConfig PluginConfig, options TaskConfig) error {
	switch {
	case !errors.Is(err, ErrNoImage):
		return err
	case options.Environment == pluginConfig.DefaultEnvironment:
		return fmt.Errorf("%w: make it with: nomad-promptflow environment build-base (environments are in %s)",
			err, pluginConfig.Environments)
	case options.Environment != "":
		return fmt.Errorf("%w: publish it to %s, or name another", err, pluginConfig.Environments)
	}
	return err
}

func (d *Driver) reportProgress(config *plugin.TaskConfig, what string, progress ImageProgress) {
	annotations := map[string]string{"image_digest": progress.Digest}
	if !progress.Done {
		d.logger.Info("making image ready", "task_id", config.ID, "image", what, "action", progress.Action)
		d.emit(config, fmt.Sprintf("%s of %s started", title(progress.Action), what), annotations)
		return
	}
	took := progress.Took.Round(10 * time.Millisecond)
	d.logger.Info("image is ready", "task_id", config.ID, "image", what, "action", progress.Action,
		"layers", progress.Layers, "bytes", progress.Bytes, "took", took)
	annotations["bytes"] = fmt.Sprint(progress.Bytes)
	annotations["layers"] = fmt.Sprint(progress.Layers)
	d.emit(config, fmt.Sprintf("%s of %s done: %s in %d layers, %s",
		title(progress.Action), what, megabytes(progress.Bytes), progress.Layers, took), annotations)
}

func title(action string) string {
	return map[string]string{"import": "Import", "pull": "Pull", "unpack": "Unpack"}[action]
}

func megabytes(bytes int64) string {
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}
