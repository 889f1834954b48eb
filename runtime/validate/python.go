package validate

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/template"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// answers are what Python said, now or in an earlier check.
type answers struct {
	nodes        map[*unit]*worker.CheckResult
	templates    map[string]*worker.CheckResult // by text
	requirements *worker.CheckResult
}

// memory keeps Python's answers as long as what they depend on stays the same.
type memory struct {
	setting   [sha256.Size]byte // environment and connections
	scripts   []string          // all Python files; another one may come before those that were imported
	nodes     map[string]remembered
	templates map[string]*worker.CheckResult
}

// remembered is the answer about a node, with the files that it was made from.
type remembered struct {
	result *worker.CheckResult
	files  map[string]stamp
}

// holds reports whether nothing that an answer was made from has changed. What went wrong is tried again.
func (r remembered) holds(f *folder) bool {
	if r.result.Tool == nil || r.result.Tool.Error != nil {
		return false
	}
	for name, before := range r.files {
		if now, ok := f.stamps[name]; !ok || now != before {
			return false
		}
	}
	return true
}

// forget drops answers that were made under another setting.
func (c *checking) forget() {
	h := sha256.New()
	h.Write(c.connectionsJSON())
	names := make([]string, 0, len(c.environment))
	for name := range c.environment {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h.Write(value.Encode([]any{name, c.environment[name]}))
	}
	setting, scripts := [sha256.Size]byte(h.Sum(nil)), c.folder.names(".py")
	if setting != c.memory.setting || !slices.Equal(scripts, c.memory.scripts) {
		c.memory.nodes = nil
	}
	c.memory.setting, c.memory.scripts = setting, scripts
}

func (c *checking) connectionsJSON() []byte {
	if c.connections == nil {
		return nil
	}
	return value.Encode(c.connections.Dict())
}

// question is a job for Python and what becomes of its answer.
type question struct {
	job  worker.CheckJob
	take func(*worker.CheckResult)
}

// askPython asks for everything that is not remembered, at once.
func (c *checking) askPython(ctx context.Context, tools bool) error {
	c.python = answers{nodes: map[*unit]*worker.CheckResult{}, templates: map[string]*worker.CheckResult{}}
	if c.draft.Flow == nil {
		return nil
	}
	c.forget()
	questions := slices.Concat(c.aboutNodes(), c.aboutTemplates(), c.aboutRequirements())
	var meta *metadata
	if tools {
		meta = c.metadata()
		questions = append(questions, meta.questions...)
	}
	if len(questions) == 0 {
		return c.finishTools(meta)
	}
	if c.config.Python == nil {
		c.leaveOut(questions)
		return nil
	}
	spec := worker.CheckSpec{Dir: c.config.Dir, Env: c.environment, Connections: json.RawMessage(c.connectionsJSON()), MessageFormat: "basic", Timeout: c.config.Timeout}
	for _, q := range questions {
		spec.Jobs = append(spec.Jobs, q.job)
	}
	results, err := c.config.Python.Check(ctx, spec)
	if errors.Is(err, worker.ErrUnavailable) {
		c.unchecked = append(c.unchecked, "everything that needs Python: "+err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	for i := range results {
		questions[i].take(&results[i])
	}
	return c.finishTools(meta)
}

// leaveOut says what was not checked without Python.
func (c *checking) leaveOut(questions []question) {
	counts := map[string]int{}
	for _, q := range questions {
		counts[q.job.Kind]++
	}
	for _, kind := range []struct{ name, noun string }{
		{worker.CheckNode, "Python tool"}, {worker.CheckTemplate, "template"}, {worker.CheckRequirements, "requirements file"},
	} {
		if n := counts[kind.name]; n > 0 {
			c.unchecked = append(c.unchecked, plural(n, kind.noun)+": needs Python with the prompt flow packages, which a runtime has")
		}
	}
}

// aboutNodes asks about the nodes that Python runs.
func (c *checking) aboutNodes() []question {
	before := c.memory.nodes
	c.memory.nodes = map[string]remembered{}
	var questions []question
	for _, u := range c.units {
		if !u.inPython() {
			continue
		}
		key := string(value.Encode(u.Raw))
		if r, ok := before[key]; ok && r.holds(c.folder) {
			c.python.nodes[u], c.memory.nodes[key] = r.result, r
			c.reused++
			continue
		}
		c.checked++
		questions = append(questions, question{worker.CheckJob{Kind: worker.CheckNode, Node: u.Raw}, func(result *worker.CheckResult) {
			c.python.nodes[u] = result
			r := remembered{result, map[string]stamp{}}
			for _, name := range append([]string{path.Clean(u.Source.Path)}, result.Files...) {
				if s, ok := c.folder.stamps[name]; ok {
					r.files[name] = s
				}
			}
			c.memory.nodes[key] = r
		}})
	}
	return questions
}

// inPython reports whether a worker resolves the node's tool.
func (u *unit) inPython() bool { return u.Type == flow.Python && u.Source != nil }

// aboutTemplates asks about the templates that Go cannot read.
func (c *checking) aboutTemplates() []question {
	before := c.memory.templates
	c.memory.templates = map[string]*worker.CheckResult{}
	var questions []question
	for _, u := range c.units {
		text, ok := c.template(u)
		if !ok || template.New(text).Native() || c.python.templates[text] != nil {
			continue
		}
		if r := before[text]; r != nil {
			c.python.templates[text], c.memory.templates[text] = r, r
			c.reused++
			continue
		}
		c.checked++
		c.python.templates[text] = &worker.CheckResult{Failure: "it was not checked"}
		questions = append(questions, question{worker.CheckJob{Kind: worker.CheckTemplate, Text: text}, func(result *worker.CheckResult) {
			c.python.templates[text] = result
			if result.Crash == "" && result.Failure == "" {
				c.memory.templates[text] = result
			}
		}})
	}
	return questions
}

// errNoPython says that a template cannot be read here.
var errNoPython = errors.New("the template needs Python")

// renderer answers about templates from what Python said.
type renderer struct{ c *checking }

// Render implements template.Renderer; nothing is rendered here.
func (renderer) Render(context.Context, string, *value.Dict) (string, error) { return "", errNoPython }

// Variables implements template.Renderer.
func (r renderer) Variables(_ context.Context, text string) ([]string, error) {
	answer := r.c.python.templates[text]
	switch {
	case answer == nil || answer.Crash != "" || answer.Failure != "":
		return nil, errNoPython
	case answer.Class != "":
		return nil, &template.Error{Class: answer.Class, Message: answer.Message, Line: answer.Line}
	}
	names := make([]string, len(answer.Variables))
	for i, v := range answer.Variables {
		names[i] = v.Name
	}
	return names, nil
}

// shorten takes the folder of this validation out of a message of Python's.
func (c *checking) shorten(message string) string {
	return strings.ReplaceAll(message, strings.TrimSuffix(c.config.Dir, "/")+"/", "")
}
