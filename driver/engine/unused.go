package engine

import (
	"context"
	"fmt"
	"maps"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// labelFetched is on the images that this driver brought, with the time. It never touches others.
const labelFetched = "nomad-promptflow/fetched"

// fetchedLabels are the labels of an image that is brought over stored, if there is one. An image that somebody else has put
// there stays theirs.
func fetchedLabels(stored containerd.Image) map[string]string {
	if stored == nil {
		return map[string]string{labelFetched: time.Now().UTC().Format(time.RFC3339)}
	}
	return maps.Clone(stored.Labels())
}

// FetchedImages are the images that the driver brought.
func (e *Engine) FetchedImages(ctx context.Context) ([]string, error) {
	records, err := e.client.ImageService().List(e.namespaced(ctx), fmt.Sprintf("labels.%q", labelFetched))
	if err != nil {
		return nil, fmt.Errorf("list images: %w", explain(err))
	}
	names := make([]string, 0, len(records))
	for _, record := range records {
		names = append(names, record.Name)
	}
	return names, nil
}

// RemoveImage removes an image that the driver brought, with all that nothing else needs of it.
func (e *Engine) RemoveImage(ctx context.Context, name string) error {
	ctx = e.namespaced(ctx)
	record, err := e.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for image %s: %w", name, explain(err))
	}
	if record.Labels[labelFetched] == "" {
		return nil
	}
	containers, err := e.client.ContainerService().List(ctx, fmt.Sprintf("image==%q", name))
	if err != nil {
		return fmt.Errorf("list containers of image %s: %w", name, explain(err))
	}
	if len(containers) > 0 {
		return fmt.Errorf("remove image %s: %w: %d containers", name, driver.ErrImageInUse, len(containers))
	}
	if err := e.client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove image %s: %w", name, explain(err))
	}
	return nil
}
