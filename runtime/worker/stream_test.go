package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

const streams = `
import asyncio, builtins, os, threading
made = builtins.npf_made = []
gate = builtins.npf_gate = threading.Event()

@tool
def make(kind: str):
    return globals()[kind]()

def words():
    yield "a"
    yield "b\u00e9\ud800"
    yield ""

def things():
    yield 1
    yield {"k": [None, 1.5]}
    yield (1, 2)
    yield object

def threads():
    for _ in range(100):
        yield threading.get_ident()

def endless():
    try:
        while True:
            made.append(1)
            yield len(made)
    finally:
        made.append("closed")

def gated():
    yield "before"
    gate.wait(60)
    yield "after"

def broken():
    yield "one"
    raise ValueError("no more")

def leaving():
    yield "one"
    os._exit(3)

def huge():
    yield "x" * 2_000_000

async def later():
    for i in range(100):
        await asyncio.sleep(0)
        yield i

async def endless_later():
    try:
        while True:
            made.append(1)
            yield len(made)
    finally:
        made.append("closed")

async def broken_later():
    yield "one"
    raise ValueError("no more")
`

const look = `
import os
@tool
def look(what: str):
    if what == "open":
        npf_gate.set()
    return [len(npf_made), "closed" in npf_made, os.getpid()]
`

// streaming is a worker with nodes that make streams, and one that looks into them from beside.
func streaming(t *testing.T) (*Session, func(kind string) *value.Ref, func(what string) []any) {
	t.Helper()
	m := startManager(t, Config{Workers: 1, MaxFrame: 1 << 20, Grace: 2 * time.Second})
	dir := writeFlow(t, "make.py", script(streams), "look.py", script(look))
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{node("make", "make.py", "kind", "${inputs.kind}"), node("look", "look.py", "what", "${inputs.what}")}})
	s := lease(t, f)
	mk := func(kind string) *value.Ref {
		r := call(t, s, "make", "kind", kind)
		must.Nil(t, r.Error)
		ref := r.Value.(*value.Ref)
		must.True(t, ref.Stream)
		return ref
	}
	return s, mk, func(what string) []any {
		r := call(t, s, "look", "what", what)
		must.Nil(t, r.Error)
		return r.Value.([]any)
	}
}

func read(t *testing.T, s *Session, ref *value.Ref) ([]any, error) {
	t.Helper()
	items := []any{}
	err := s.Stream(within(t, time.Minute), ref, func(item any) error {
		items = append(items, item)
		return nil
	})
	return items, err
}

func TestStream_handsOverEveryItem(t *testing.T) {
	t.Parallel()
	s, mk, _ := streaming(t)
	items, err := read(t, s, mk("words"))
	must.NoError(t, err)
	test.Eq(t, []any{"a", "bé\xed\xa0\x80", ""}, items)
	items, err = read(t, s, mk("things"))
	must.NoError(t, err)
	test.Eq(t, `[1,{"k":[null,1.5]},"(1, 2)","<class 'object'>"]`, string(value.Encode(items)))
	items, err = read(t, s, mk("threads"))
	must.NoError(t, err)
	must.SliceLen(t, 100, items)
	for _, item := range items {
		test.Eq(t, items[0], item, test.Sprint("an iterator runs in one thread from its beginning to its end"))
	}
	items, err = read(t, s, mk("later"))
	must.NoError(t, err)
	must.SliceLen(t, 100, items)
	test.Eq(t, any(int64(99)), items[99])
	ref := mk("words")
	_, err = read(t, s, ref)
	must.NoError(t, err)
	items, err = read(t, s, ref)
	must.NoError(t, err)
	test.SliceEmpty(t, items, test.Sprint("a stream can be read once"))
}

func TestStream_doesNotWaitForTheNextItem(t *testing.T) {
	t.Parallel()
	s, mk, look := streaming(t)
	var items []any
	err := s.Stream(within(t, time.Minute), mk("gated"), func(item any) error {
		items = append(items, item)
		if item == "before" { // else the second would never come
			look("open")
		}
		return nil
	})
	must.NoError(t, err)
	test.Eq(t, []any{"before", "after"}, items)
}

func TestStream_slowReadersHoldTheIteratorUp(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"endless", "endless_later"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, mk, look := streaming(t)
			enough := errors.New("enough")
			taken := 0
			err := s.Stream(within(t, time.Minute), mk(kind), func(any) error {
				if taken++; taken == 100 {
					// Room for 32 items at first and for 16 after every 16 taken, and the one that waits for room.
					eventually(t, "it runs ahead as far as it may", func() bool { return look("at it")[0].(int64) >= 129 })
					test.Eq(t, any(int64(129)), look("at it")[0])
					return enough
				}
				return nil
			})
			must.ErrorIs(t, err, enough)
			test.Eq(t, 100, taken)
			pid := look("who")[2]
			eventually(t, "the iterator is closed", func() bool { return look("at it")[1] == true })
			test.Eq(t, pid, look("who")[2], test.Sprint("the worker was not given up"))
		})
	}
}

func TestStream_endsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"endless", "endless_later"} {
		s, mk, look := streaming(t)
		ctx, cancel := context.WithCancel(t.Context())
		taken := 0
		err := s.Stream(ctx, mk(kind), func(any) error {
			if taken++; taken == 50 {
				cancel()
			}
			return nil
		})
		test.Eq(t, "ToolCanceledError", api.AsError(err).Class())
		eventually(t, "the iterator is closed", func() bool { return look("at it")[1] == true })
	}
}

func TestStream_failures(t *testing.T) {
	t.Parallel()
	s, mk, _ := streaming(t)
	for _, kind := range []string{"broken", "broken_later"} {
		items, err := read(t, s, mk(kind))
		test.Eq(t, []any{"one"}, items)
		test.ErrorContains(t, err, "no more")
		test.Eq(t, "ValueError", api.AsError(err).Class())
	}
	_, err := read(t, s, mk("huge"))
	test.ErrorContains(t, err, "too large")
	_, err = read(t, s, &value.Ref{ID: 12345, Stream: true})
	test.ErrorContains(t, err, "was released")
	items, err := read(t, s, mk("leaving"))
	test.Eq(t, []any{"one"}, items)
	test.Eq(t, "ProcessCrashError", api.AsError(err).Class())
}

func TestCall_setsTheStreamingOption(t *testing.T) {
	t.Parallel()
	m := startManager(t, Config{Workers: 1})
	dir := writeFlow(t, "opt.py", `
from promptflow.core import tool
@tool(streaming_option_parameter="live")
def f(x: int, live: bool = False):
    return [x, live]
`, "none.py", script("@tool\ndef f(x: int, live: bool = False): return [x, live]\n"),
		"gone.py", "from promptflow.core import tool\n@tool(streaming_option_parameter='other')\ndef f(x: int, live: bool = False): return [x, live]\n")
	f := open(t, m, FlowSpec{ID: "f", Dir: dir, Nodes: []*value.Dict{
		node("opt", "opt.py", "x", int64(1), "live", true), node("none", "none.py", "x", int64(1)), node("gone", "gone.py", "x", int64(1)),
	}})
	test.Eq(t, []string{"live", "", ""}, []string{f.Tools()[0].StreamingOption, f.Tools()[1].StreamingOption, f.Tools()[2].StreamingOption})
	s := lease(t, f)
	yes, no := true, false
	for _, tc := range []struct {
		node   string
		stream *bool
		want   bool
	}{{"opt", nil, true}, {"opt", &no, false}, {"opt", &yes, true}, {"none", &yes, false}, {"gone", &yes, false}} {
		r, err := s.Call(within(t, time.Minute), Call{Node: tc.node, RunID: "r", Stream: tc.stream})
		must.NoError(t, err)
		must.Nil(t, r.Error)
		test.Eq(t, any([]any{int64(1), tc.want}), r.Value, test.Sprint(tc.node, tc.stream))
	}
}
