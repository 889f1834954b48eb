package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/nomad-promptflow/nomad-promptflow/driver"
)

// leaseTime is how long the parts of a container that is being made are kept from containerd's garbage collector, should nobody say
// that it is finished. A start takes far less.
const leaseTime = 10 * time.Minute

// lease keeps what is made under the returned context until release. Without it the collector could take the snapshot
// before there is a container that refers to it. It is named like the container, as everything of a container is.
func (e *Engine) lease(ctx context.Context, request driver.ContainerRequest) (leased context.Context, release func(), err error) {
	service := e.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithID(request.ID), leases.WithLabels(maps.Clone(request.Marks)), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, nil, fmt.Errorf("make lease: %w", explain(err))
	}
	return leases.WithLease(ctx, lease.ID), func() {
		ctx, cancel := e.cleanup(ctx)
		defer cancel()
		if err := ignoreAbsent(service.Delete(ctx, lease)); err != nil {
			e.logger.Warn("cannot give up lease", "container_id", request.ID, "error", err)
		}
	}, nil
}

// List names the containers that are marked with label, and of those that never came to be or are no more their snapshots and
// leases.
func (e *Engine) List(ctx context.Context, label string) ([]driver.Remains, error) {
	ctx = e.namespaced(ctx)
	marked := fmt.Sprintf("labels.%q", label)
	found := map[string]driver.Remains{}
	add := func(id string, labels map[string]string, created time.Time) {
		if _, known := found[id]; !known {
			found[id] = driver.Remains{ID: id, Labels: labels, Created: created}
		}
	}
	records, err := e.client.ContainerService().List(ctx, marked)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", explain(err))
	}
	for _, record := range records {
		add(record.ID, record.Labels, record.CreatedAt)
	}
	err = e.client.SnapshotService(e.config.Snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		add(info.Name, info.Labels, info.Created)
		return nil
	}, marked)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", explain(err))
	}
	held, err := e.client.LeasesService().List(ctx, marked)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", explain(err))
	}
	for _, lease := range held {
		add(lease.ID, lease.Labels, lease.CreatedAt)
	}
	return slices.Collect(maps.Values(found)), nil
}

// Relabel sets labels of a container.
func (e *Engine) Relabel(ctx context.Context, id string, labels map[string]string) error {
	paths := make([]string, 0, len(labels))
	for name := range labels {
		paths = append(paths, "labels."+name)
	}
	_, err := e.client.ContainerService().Update(e.namespaced(ctx), containers.Container{ID: id, Labels: labels}, paths...)
	if err != nil {
		return fmt.Errorf("label container %s: %w", id, explain(err))
	}
	return nil
}
