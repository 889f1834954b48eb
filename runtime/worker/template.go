package worker

import (
	"context"
	"encoding/json"
	"fmt"
)

// template is a flow's process that has imported its code, runs nothing and is forked whenever the flow needs another worker: that takes
// milliseconds, and the workers share its memory. A flow whose import starts threads or opens connections has none, since a fork
// would break them; its workers import the code one by one.
type template struct {
	*forker
	process *process
}

// loaded is what a process told of the flow it loaded.
type loaded struct {
	tools    []*Tool
	script   *Script
	forkable bool
}

// source returns what the flow's workers are forked from; or, of a flow that cannot be forked, a process that has loaded it. Only a load
// says what was learned of the flow.
func (f *Flow) source(ctx context.Context) (*template, *process, loaded, error) {
	f.loading.Lock()
	defer f.loading.Unlock()
	f.mu.Lock()
	t := f.template
	f.mu.Unlock()
	if t != nil && t.alive() {
		return t, nil, loaded{}, nil
	}
	f.closeTemplate()
	p, l, err := f.bindFresh(ctx)
	if err != nil || !l.forkable {
		return nil, p, l, err
	}
	if err := p.post(map[string]any{"op": "template"}); err != nil {
		p.stop()
		return nil, nil, l, err
	}
	t = &template{forker: newForker(p.forks, p.dead), process: p}
	t.readers.Go(t.read)
	f.mu.Lock()
	f.template = t
	f.mu.Unlock()
	return t, nil, l, nil
}

// bindFresh has a process from the zygote load the flow.
func (f *Flow) bindFresh(ctx context.Context) (*process, loaded, error) {
	var l loaded
	p, err := f.manager.take(ctx)
	if err != nil {
		return nil, l, err
	}
	head := make(map[string]any, len(f.head)+2)
	for k, v := range f.head {
		head[k] = v
	}
	r, err := p.roundTrip(ctx, head, f.bind...)
	if err == nil && r.Error != nil {
		err = finish(r.Error)
	}
	if err == nil {
		err = l.readTools(r)
	}
	if err != nil {
		p.stop()
		return nil, l, err
	}
	return p, l, nil
}

func (l *loaded) readTools(r *reply) error {
	l.forkable = r.Forkable
	if err := json.Unmarshal(r.parts["tools"], &l.tools); err != nil {
		return fmt.Errorf("decode tools: %w", err)
	}
	for _, t := range l.tools {
		_ = finish(t.Error)
	}
	return nil
}

func (l *loaded) readScript(r *reply) error {
	described := r.parts["script"]
	if described == nil {
		return nil
	}
	l.script = &Script{}
	if err := json.Unmarshal(described, l.script); err != nil {
		return fmt.Errorf("decode script: %w", err)
	}
	return nil
}

// closeTemplate ends the template, if there is one. Workers forked from it go on.
func (f *Flow) closeTemplate() {
	f.mu.Lock()
	t := f.template
	f.template = nil
	f.mu.Unlock()
	if t != nil {
		t.process.stop()
		t.readers.Wait()
	}
}
