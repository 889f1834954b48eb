package run

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/media"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Opened is a line whose nodes have run. What it streams is still to be read: nodes are done when they begin to stream, as in prompt
// flow.
type Opened struct {
	x      *Executor
	line   *Line
	stage  *stage
	ctx    context.Context // of the line
	cancel context.CancelFunc
	began  time.Time
	err    error // of the nodes
}

// Failed reports whether the line has failed already.
func (o *Opened) Failed() bool { return o.err != nil }

// Primitive says that a flex flow gave one value instead of an object; the outputs have it as "output".
func (o *Opened) Primitive() bool { return o.line.Primitive }

// Info returns the line's record as it is now.
func (o *Opened) Info() api.FlowRunInfo {
	info := o.line.Info
	info.EndTime = stamp(time.Now())
	return info
}

// Format returns the format in which the flow's images are spelled.
func (o *Opened) Format() media.Format { return o.x.media.Format }

// Streams returns the names of the outputs that stream, in order.
func (o *Opened) Streams() []string {
	var names []string
	for name, v := range o.line.Output.All() {
		if streamOf(v, o.stage) != nil {
			names = append(names, name)
		}
	}
	return names
}

// Outputs returns the outputs that do not stream; none of a line that failed.
func (o *Opened) Outputs() *value.Dict {
	out := value.NewDictSize(o.line.Output.Len())
	for name, v := range o.line.Output.All() {
		if streamOf(v, o.stage) == nil {
			out.Set(name, v)
		}
	}
	return out
}

// Finish reads what streams, all outputs at once, and completes the line's records. Emit is called by several goroutines, with each
// item as soon as it is made; its error ends the line.
func (o *Opened) Finish(emit func(output string, item any) error) *Line {
	err := o.err
	if err == nil {
		err = o.read(emit)
	}
	if err == nil {
		o.line.given, err = o.x.aggregationValues(o.ctx, o.stage.graph)
	}
	o.stage.completeStreams()
	o.line.end(o.ctx, o.stage, o.began, err)
	return o.line
}

// Close frees what the line holds.
func (o *Opened) Close() {
	o.cancel()
	o.line.session.release()
}

// read reads the streaming outputs. Those that share a stream are read one after the other: the first gets all of it.
func (o *Opened) read(emit func(output string, item any) error) error {
	type reader struct {
		source  *source
		outputs []string
	}
	var readers []*reader
	byStream := map[any]*reader{}
	for _, name := range o.Streams() {
		v, _ := o.line.Output.Get(name)
		source := streamOf(v, o.stage)
		r := byStream[source.id]
		if r == nil {
			r = &reader{source: source}
			byStream[source.id] = r
			readers = append(readers, r)
		}
		r.outputs = append(r.outputs, name)
	}
	if len(readers) == 0 {
		return nil
	}
	texts := make(map[string]*strings.Builder, len(readers))
	for _, r := range readers {
		for _, name := range r.outputs {
			texts[name] = &strings.Builder{}
		}
	}
	group, ctx := errgroup.WithContext(o.ctx)
	for _, r := range readers {
		group.Go(func() error {
			for _, name := range r.outputs {
				if err := r.source.read(ctx, func(item any) error {
					texts[name].WriteString(value.Str(item))
					return emit(name, item)
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	for name, text := range texts {
		o.line.Output.Set(name, text.String())
	}
	return err
}

// source is a stream, wherever it lives.
type source struct {
	id   any
	read func(ctx context.Context, emit func(item any) error) error
	join func(ctx context.Context) (string, error)
}

// streamOf returns the stream that a value is, nil when it is none.
func streamOf(v any, s *stage) *source {
	switch v := v.(type) {
	case *value.Stream:
		return &source{id: v, read: v.Read, join: func(ctx context.Context) (string, error) {
			var text strings.Builder
			err := v.Read(ctx, func(item any) error {
				text.WriteString(value.Str(item))
				return nil
			})
			return text.String(), err
		}}
	case *value.Ref:
		if v.Stream {
			return s.streamRef(v)
		}
	}
	return nil
}

func (s *stage) streamRef(ref *value.Ref) *source {
	return &source{
		id: ref.ID,
		read: func(ctx context.Context, emit func(item any) error) error {
			leased, err := s.session.get(ctx)
			if err != nil {
				return err
			}
			return leased.Stream(ctx, ref, emit)
		},
		join: func(ctx context.Context) (string, error) {
			leased, err := s.session.get(ctx)
			if err != nil {
				return "", err
			}
			return leased.Join(ctx, ref)
		},
	}
}

// said is what a node streamed, for its record.
type said struct {
	record *record
	text   strings.Builder
	tokens func() *value.Dict
}

// keepSaid notes what a model says beside handing it on.
func (s *stage) keepSaid(r *record, stream *value.Stream, tokens func() *value.Dict) *value.Stream {
	kept := &said{record: r, tokens: tokens}
	s.said = append(s.said, kept)
	return &value.Stream{Repr: stream.Repr, Read: func(ctx context.Context, emit func(item any) error) error {
		return stream.Read(ctx, func(item any) error {
			kept.text.WriteString(value.Str(item))
			return emit(item)
		})
	}}
}

// completeStreams puts what models said into the records of their nodes.
func (s *stage) completeStreams() {
	for _, k := range s.said {
		k.record.info.Output = value.Encode(k.text.String())
		k.record.info.Result = k.record.info.Output
		k.record.count(k.tokens())
	}
}
