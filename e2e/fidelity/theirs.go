package fidelity

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Theirs is prompt flow's own executor, in a Python of its own.
type Theirs struct {
	Python      string // interpreter with the prompt flow packages
	Script      string // testdata/oracle.py
	Temporary   string // an existing folder
	Connections *value.Dict
	Parallel    int
	Timeout     time.Duration // of a flow with one setup
	// InPlace runs flows in their own folders; otherwise in copies, so that what they write is lost.
	InPlace bool
	Verbose bool
}

// Outcome is what one side made of a flow: one result per case, in order. Broken says that the side itself failed.
type Outcome struct {
	Cases  []any
	Broken string
}

// Run runs the flows and hands each outcome to done, in the order in which they end. It returns when all have ended.
func (t *Theirs) Run(ctx context.Context, flows []Flow, done func(flow int, o Outcome)) error {
	jobs := t.jobs(flows)
	request := value.NewDict()
	request.Set("parallel", int64(t.Parallel))
	request.Set("timeout", t.Timeout.Seconds())
	list := make([]any, len(jobs))
	for i, j := range jobs {
		list[i] = j.encode(t, i)
	}
	request.Set("jobs", list)
	collector := newCollector(flows, done)
	return t.start(ctx, value.Encode(request), func(answer *value.Dict) error {
		id, _ := answer.Get("id")
		n, ok := id.(int64)
		if !ok || n < 0 || int(n) >= len(jobs) {
			return fmt.Errorf("answer to no job: %v", id)
		}
		collector.take(jobs[n], t.read(answer, jobs[n]))
		return nil
	})
}

// job is the cases of one flow that have one setup: a process.
type job struct {
	flow  *Flow
	index int
	setup Setup
	cases []int
}

func (t *Theirs) jobs(flows []Flow) []job {
	var jobs []job
	for i := range flows {
		jobs = append(jobs, split(&flows[i], i)...)
	}
	return jobs
}

// split groups a flow's cases by their setup.
func split(f *Flow, index int) []job {
	var jobs []job
	at := map[string]int{}
	for i, c := range f.Cases {
		key := c.Setup.key()
		n, ok := at[key]
		if !ok {
			n = len(jobs)
			at[key] = n
			jobs = append(jobs, job{flow: f, index: index, setup: c.Setup})
		}
		jobs[n].cases = append(jobs[n].cases, i)
	}
	return jobs
}

func (j job) encode(t *Theirs, id int) *value.Dict {
	cases := make([]any, len(j.cases))
	for i, n := range j.cases {
		cases[i] = j.flow.Cases[n].dict()
	}
	d := value.NewDict()
	d.Set("id", int64(id))
	d.Set("folder", j.flow.Dir)
	d.Set("file", j.flow.File)
	d.Set("in_place", t.InPlace)
	d.Set("setup", j.setup.dict())
	d.Set("cases", cases)
	set(d, "connections", t.Connections)
	return d
}

func (c Case) dict() *value.Dict {
	d := value.NewDict()
	set(d, "inputs", c.Inputs)
	set(d, "dependency_outputs", c.Dependencies)
	if c.Lines != nil {
		d.Set("lines", c.Lines)
	}
	if c.Node != "" {
		d.Set("node", c.Node)
	}
	return d
}

// start runs the script and hands over its answers.
func (t *Theirs) start(ctx context.Context, request []byte, take func(*value.Dict) error) error {
	cmd := exec.CommandContext(ctx, t.Python, t.Script)
	cmd.Env = append(os.Environ(), "FIDELITY_TEMPORARY="+t.Temporary, "PYTHONDONTWRITEBYTECODE=1", "HOME="+t.Temporary,
		"PF_HOME_DIRECTORY="+filepath.Join(t.Temporary, "home"), "NO_PROXY=127.0.0.1,localhost")
	cmd.Stdin = bytes.NewReader(request)
	var log tail
	cmd.Stderr = &log
	if t.Verbose {
		cmd.Stderr = os.Stderr
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start prompt flow's executor: %w", err)
	}
	err = readAnswers(out, take)
	if ended := cmd.Wait(); ended != nil {
		err = fmt.Errorf("run prompt flow's executor: %w\n%s", errors.Join(ended, err), log.text())
	}
	return err
}

func readAnswers(r io.Reader, take func(*value.Dict) error) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(text) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := value.DecodeDict(text)
		if err != nil {
			return fmt.Errorf("read answer %.200q: %w", text, err)
		}
		if err := take(answer); err != nil {
			return err
		}
	}
}

// read makes the results of a job's cases: all have the failure of a flow that could not be loaded.
func (t *Theirs) read(answer *value.Dict, j job) Outcome {
	if v, ok := answer.Get("broken"); ok {
		return Outcome{Broken: value.Str(v)}
	}
	if v, ok := answer.Get("timeout"); ok {
		return Outcome{Broken: "it takes longer than " + value.Str(v) + " seconds"}
	}
	result, _ := answer.Get("result")
	if places, ok := get(answer, "places").([]any); ok {
		for _, place := range places {
			result = replaceText(result, value.Str(place), flowFolder)
		}
	}
	d, _ := result.(*value.Dict)
	v, _ := d.Get("cases")
	cases, ok := v.([]any)
	if !ok {
		for range j.cases {
			cases = append(cases, d)
		}
	}
	return Outcome{Cases: cases}
}

// flowFolder stands for the folder in which a side has the flow.
const flowFolder = "<flow>"

func replaceText(v any, old, replacement string) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, old, replacement)
	case []any:
		for i := range v {
			v[i] = replaceText(v[i], old, replacement)
		}
	case *value.Dict:
		for k, item := range v.All() {
			v.Set(k, replaceText(item, old, replacement))
		}
	}
	return v
}

// collector puts jobs' results together to flows' outcomes.
type collector struct {
	outcomes []Outcome
	waiting  []int // jobs
	done     func(int, Outcome)
}

func newCollector(flows []Flow, done func(int, Outcome)) *collector {
	c := &collector{outcomes: make([]Outcome, len(flows)), waiting: make([]int, len(flows)), done: done}
	for i := range flows {
		c.waiting[i] = len(split(&flows[i], i))
		c.outcomes[i].Cases = make([]any, len(flows[i].Cases))
	}
	return c
}

func (c *collector) take(j job, o Outcome) {
	out := &c.outcomes[j.index]
	if o.Broken != "" {
		out.Broken = o.Broken
	}
	for i, n := range j.cases {
		if i < len(o.Cases) {
			out.Cases[n] = o.Cases[i]
		}
	}
	if c.waiting[j.index]--; c.waiting[j.index] == 0 {
		c.done(j.index, *out)
	}
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 64<<10; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) text() string { return string(t.b) }
