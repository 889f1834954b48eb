package validate

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// The types of inputs, outputs and init arguments of flex flows (prompt flow's ALLOWED_TYPES); an init argument may be a connection or a
// model's configuration too.
var flexTypes = []string{"string", "int", "double", "bool", "list", "object"}

// aboutScript asks prompt flow's own executor to make a flow that has no nodes.
func (c *checking) aboutScript() []question {
	f := c.draft.Flow
	before := c.memory.script
	c.memory.script = remembered{}
	if f.Form == flow.DAG || f.Form == flow.Flex && f.Entry == "" || f.Card != nil && f.Card.Config == nil {
		return nil
	}
	if before.holds(c.folder) {
		c.python.script, c.memory.script = before.result, before
		c.reused++
		return nil
	}
	c.checked++
	file := f.File
	if f.Code != "" {
		file = filepath.Join(c.config.Dir, f.File)
	}
	return []question{{worker.CheckJob{Kind: worker.CheckScript, File: file, Entry: f.Entry, Given: c.givenInit()}, func(r *worker.CheckResult) {
		for i, name := range r.Files {
			r.Files[i] = path.Join(f.Code, name)
		}
		c.python.script, c.memory.script = r, c.remember(r, f.File)
	}}}
}

// givenInit are the arguments of a flex flow's class that a run has by itself: those of its sample, and defaults.
func (c *checking) givenInit() []string {
	var given []string
	for _, in := range c.draft.Flow.Init {
		if in.Default != nil {
			given = append(given, in.Name)
		}
	}
	for _, f := range (fields{c.draft.Document}).below("sample").below("init").list() {
		given = append(given, f.Key)
	}
	return given
}

// flex checks a flex flow.
func (c *checking) flex() {
	root := fields{c.draft.Document}
	for _, port := range []struct {
		key, what string
		types     []string
	}{{"inputs", "flow input", flexTypes}, {"outputs", "flow output", flexTypes}, {"init", "init argument", nil}} {
		for _, f := range root.below(port.key).list() {
			c.flexType(f, port.what, port.types)
		}
	}
	answer := c.python.script
	if answer == nil {
		return
	}
	if answer.Entry != nil {
		c.entry(answer.Entry)
	}
	if answer.Error == nil || answer.Place != nil || !c.report.has(answer.Error.Class()) {
		c.scriptError(answer)
	}
}

// entry checks what the file says of the inputs and the init arguments against the function or the class that the flow is.
func (c *checking) entry(e *worker.Entry) {
	where := c.draft.Flow.Entry
	if e.Function != nil {
		where = e.Function.Name + " (" + path.Join(c.draft.Flow.Code, e.Function.File) + ":" + value.Str(int64(e.Function.Line)) + ")"
	}
	c.ports("inputs", "flow input", e.Parameters, e.Kwargs, flow.Class{api.UserError, "ScriptExecutionError"}, where)
	if e.Init != nil {
		c.ports("init", "init argument", e.Init, e.InitKwargs, flow.Class{api.UserError, "FlowEntryInitializationError"}, "the class of "+where)
	}
}

// flexType checks that the type of an input, output or init argument is one that flex flows have.
func (c *checking) flexType(f document.Field, what string, types []string) {
	field := f.Value.Get("type")
	text := textOf(field)
	if text == "" || types == nil && (strings.HasSuffix(text, "Connection") || strings.HasSuffix(text, "ModelConfiguration")) || slices.Contains(flexTypes, text) {
		return
	}
	all := strings.Join(flexTypes, ", ")
	c.report.err(schemaError, c.valuePlace(field), nil, "The type "+text+" of "+what+" '"+f.Key+"' is none of a flex flow: "+all+".",
		didYouMean(text, flexTypes, quoted, "Write one of "+all+"."))
}

// scriptError reports what keeps prompt flow from making the flow.
func (c *checking) scriptError(answer *worker.CheckResult) {
	at := flow.Place{File: c.draft.File, Line: 1, Column: 1}
	if c.draft.Flow.Form == flow.Flex {
		at = fields{c.draft.Document}.value(c.draft.File, "entry", at)
	}
	switch {
	case answer.Crash != "":
		c.report.err(flow.Class{api.UserError, "ProcessCrashError"}, at, nil, "The process that loaded the flow crashed: "+answer.Crash+".",
			"Look for what runs on import: native code, os._exit, or a loop that does not end.")
		return
	case answer.Failure != "":
		c.unchecked = append(c.unchecked, "the flow's entry: "+answer.Failure)
		return
	case answer.Error == nil:
		return
	}
	e := *answer.Error
	e.Message = c.shorten(e.Message)
	mend := c.mendScript(answer)
	if p := answer.Place; p != nil {
		at = flow.Place{File: path.Join(c.draft.Flow.Code, p.File), Line: p.Line, Column: p.Column}
	}
	c.report.failure(at.At(&e), mend, nil)
}

// mendScript says what to do about an entry that cannot be had.
func (c *checking) mendScript(answer *worker.CheckResult) string {
	module, _, _ := strings.Cut(c.draft.Flow.Entry, ":")
	switch cause := answer.Cause; {
	case cause == nil:
		return ""
	case cause.Class == "ModuleNotFoundError" && answer.Place == nil && cause.Name == strings.SplitN(module, ".", 2)[0]:
		return didYouMean(module, c.ownModules(), quoted, "Name a module of the flow's folder, as in 'entry: file:function' for file.py.")
	case answer.Place != nil:
		return c.mendCause(cause)
	case c.draft.Flow.Form == flow.Flex:
		return "Name a function or a class of " + module + " that can be called."
	}
	return ""
}

// ports checks what the file says of inputs or init arguments against the parameters that there are.
func (c *checking) ports(key, what string, parameters []worker.EntryParameter, any bool, class flow.Class, where string) {
	listed := fields{c.draft.Document}.below(key)
	var names []string
	for _, p := range parameters {
		names = append(names, p.Name)
	}
	for _, f := range listed.list() {
		i := slices.Index(names, f.Key)
		switch {
		case i < 0 && !any:
			c.report.err(class, c.keyPlace(&f), nil, "There is the "+what+" '"+f.Key+"', which "+where+" does not take: the call fails.",
				didYouMean(f.Key, names, quoted, "Remove it, or add the parameter."))
		case i >= 0 && len(parameters[i].Type) > 0 && !compatible(textOf(f.Value.Get("type")), parameters[i].Type[0]):
			c.report.warn("TypeMismatch", c.valuePlace(f.Value.Get("type")), nil,
				"The "+what+" '"+f.Key+"' is of type "+textOf(f.Value.Get("type"))+", and the parameter of "+parameters[i].Type[0]+".", "Let both be of one type.")
		}
	}
	if len(listed.list()) == 0 {
		return // they are taken from the code
	}
	for _, p := range parameters {
		if !p.HasDefault && !listed.has(p.Name) {
			c.report.warn("InputMissing", fields{c.draft.Document}.key(c.draft.File, key, flow.Place{File: c.draft.File, Line: 1, Column: 1}), nil,
				"The parameter '"+p.Name+"' of "+where+" is not among the "+key+".", "Add '"+p.Name+"' with its type, or give the parameter a default.")
		}
	}
}
