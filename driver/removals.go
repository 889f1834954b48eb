package driver

import (
	"context"
	"errors"
	"time"
)

// removeAfter keeps the files of an ended container until then, for a look. When it is to go stands on the container, so that
// a plugin that starts later knows it too.
func (d *Driver) removeAfter(ctx context.Context, engine Engine, container string, rest residue, at time.Time) error {
	err := engine.Relabel(ctx, container, map[string]string{labelRemoveAfter: at.UTC().Format(time.RFC3339)})
	if errors.Is(err, ErrNoContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	d.scheduleRemoval(container, rest, at)
	return nil
}

// scheduleRemoval removes a container at a time. It is in the background: whoever asks is gone by then.
//
//nolint:contextcheck // see above
func (d *Driver) scheduleRemoval(container string, rest residue, at time.Time) {
	d.background(func() {
		sleep(d.life, time.Until(at))
		if d.life.Err() != nil {
			return
		}
		d.logger.Debug("removing container that was kept for a while", "container_id", container)
		if err := d.removeLeftover(d.life, container, leftover{residue: rest}); err != nil {
			d.logger.Warn("cannot remove container that was kept for a while", "container_id", container, "error", err)
		}
	})
}

// removalTime reads when a container is to be removed. A time that is none counts as over.
func removalTime(labels map[string]string) (at time.Time, set bool) {
	value, set := labels[labelRemoveAfter]
	if !set {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return time.Time{}, true
	}
	return at, true
}
