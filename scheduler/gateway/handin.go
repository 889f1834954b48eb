package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// handIns makes sure that a bundle goes to an instance once, however many submissions wait for it.
type handIns struct {
	running sync.WaitGroup

	mu     sync.Mutex
	now    map[handInKey]*handIn
	recent map[handInKey]time.Time // when the last one succeeded
}

// maxRecent bounds what is remembered; to forget costs an upload that was not needed.
const maxRecent = 4096

type handInKey struct {
	line *line
	flow string
}

type handIn struct {
	done chan struct{}
	err  error
}

// do waits for the upload of this key, starting it unless it is under way or was done after asked, when the instance was asked and
// lacked the bundle. An upload belongs to all who wait, so none of them can end it.
func (h *handIns) do(ctx context.Context, key handInKey, asked time.Time, upload func() error) error {
	h.mu.Lock()
	one := h.now[key]
	if one == nil && h.recent[key].After(asked) {
		h.mu.Unlock()
		return nil
	}
	if one == nil {
		one = h.start(key, upload)
	}
	h.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start begins an upload. h.mu is held.
func (h *handIns) start(key handInKey, upload func() error) *handIn {
	if h.now == nil {
		h.now, h.recent = map[handInKey]*handIn{}, map[handInKey]time.Time{}
	}
	one := &handIn{done: make(chan struct{})}
	h.now[key] = one
	h.running.Go(func() {
		one.err = upload()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.now, key)
		if one.err == nil {
			if len(h.recent) >= maxRecent {
				clear(h.recent)
			}
			h.recent[key] = time.Now()
		}
		close(one.done)
	})
	return one
}

func (h *handIns) wait() { h.running.Wait() }

// handIn gives an instance the submission's bundle. Where the gateway has not got it either, the instance's answer, which asks for
// it, is the client's.
func (s *submission) handIn(at int) (o outcome, done bool) {
	l := s.pool.lines[at]
	err := s.gateway.handIns.do(s.ctx, handInKey{l, s.flow}, s.asked, func() error { return s.gateway.upload(l, s.flow) })
	var known *api.Error
	switch {
	case err == nil:
		return outcome{}, true
	case errors.Is(err, errUnknownBundle):
		return outcome{}, false
	case s.ctx.Err() != nil:
		return outcome{err: s.cancelled()}, false
	case !errors.As(err, &known):
		return s.failed(at, &notSentError{err}), false // nothing ran yet
	case refusesWork(known.HTTPStatus()):
		s.failures = append(s.failures, fmt.Sprintf("%s refused the flow's bundle: %s", l.instance.ID, known.Message))
		return outcome{next: true}, false
	case known.HTTPStatus() == http.StatusUnauthorized || known.HTTPStatus() == http.StatusForbidden:
		return outcome{err: s.distrusted(l)}, false
	default:
		return outcome{err: s.withRun(known)}, false
	}
}

// upload sends a bundle to an instance.
func (g *Gateway) upload(l *line, flow string) error {
	file, err := g.bundles.open(flow)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	ctx, cancel := context.WithTimeout(g.life, uploadTimeout)
	defer cancel()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read bundle %s: %w", flow, err)
	}
	if err := l.putFlow(ctx, flow, file, info.Size()); err != nil {
		return err
	}
	g.log.Debug("handed in bundle", "instance", l.instance.ID, "flow", flow)
	return nil
}
