package validate

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/tool"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// unit checks one node by itself: its tool, and its inputs against the tool.
func (c *checking) unit(ctx context.Context, u *unit) {
	switch {
	case u.Source == nil:
		c.report.failure(u.At(run.LoadFailure(u.Node, flow.Class{api.UserError}, "UserErrorException", "Node "+u.Name+" does not have source defined.")),
			"Give the node a 'source' with 'type: code' and a 'path'.", u)
	case u.Type == "":
		c.report.failure(u.At(run.LoadFailure(u.Node, flow.Class{api.SystemError, "NotImplementedError"}, "NotImplementedError", "Tool type None is not supported yet.")),
			"Give the node a 'type': python, prompt or llm.", u)
	case u.inPython():
		c.pythonNode(u)
	case u.Type == flow.Prompt:
		c.promptNode(ctx, u)
	case u.Type == flow.LLM:
		c.llmNode(ctx, u)
	}
}

// pythonNode judges what Python said of a node's tool.
func (c *checking) pythonNode(u *unit) {
	answer := c.python.nodes[u]
	switch {
	case answer == nil:
		c.withoutPython(u)
	case answer.Crash != "":
		c.report.err(flow.Class{api.UserError, "ProcessCrashError"}, c.script(u, 1), u, "The process that imported "+u.Source.Path+" crashed: "+answer.Crash+".",
			"Look for what runs on import: native code, os._exit, or a loop that does not end.")
	case answer.Tool == nil:
		c.unchecked = append(c.unchecked, "node '"+u.Name+"': "+answer.Failure)
	case answer.Tool.Error != nil:
		c.toolError(u, answer)
	default:
		c.signature(u, answer)
	}
}

// withoutPython checks what of a Python node can be checked without running it.
func (c *checking) withoutPython(u *unit) {
	if u.Source.Type != "code" || u.Source.Path == "" || c.folder.has(u.Source.Path) {
		return
	}
	c.report.failure(u.pathPlace().At(run.LoadFailure(u.Node, flow.InvalidSource, "InvalidSource",
		"Load tool failed for node '"+u.Name+"'. Tool file '"+u.Source.Path+"' can not be found.")), c.mendPath(u), u)
}

// script is a line of a node's script.
func (c *checking) script(u *unit, line int) flow.Place {
	if u.Source.Path == "" || !c.folder.has(u.Source.Path) {
		return u.pathPlace()
	}
	return flow.Place{File: cleanPath(u.Source.Path), Line: line, Column: 1}
}

// pathPlace is where the path of a node's source is written.
func (u *unit) pathPlace() flow.Place {
	return u.fields.below("source").value(u.File, "path", u.Source.Place)
}

// toolError reports why a node's tool could not be loaded.
func (c *checking) toolError(u *unit, answer *worker.CheckResult) {
	e := *answer.Tool.Error
	e.Message = c.shorten(e.Message)
	if c.report.said(e.Message) { // by the flow's loader, which knows the place
		return
	}
	place, mend := c.mendTool(u, &e, answer)
	if answer.Place != nil && answer.Cause != nil && c.saidOfScript(fmt.Sprint(place, answer.Cause.Message)) {
		return
	}
	c.report.failure(place.At(&e), mend, u)
	if answer.Inputs != nil { // the tool is there, and one of its inputs is wrong
		c.otherLiterals(u, answer, place)
		c.signature(u, answer)
	}
}

// otherLiterals checks the literals of a node beyond the first wrong one, with which prompt flow stops.
func (c *checking) otherLiterals(u *unit, answer *worker.CheckResult, said flow.Place) {
	for _, in := range u.Inputs {
		definition, ok := answer.Inputs[in.Name]
		if !ok || len(definition.Type) == 0 || in.Kind != flow.Literal || leftOut(in) || in.Where == said {
			continue
		}
		typ := definition.Type[0]
		if strings.HasSuffix(typ, "Connection") {
			c.connectionInput(u, in, definition.Type)
		} else if err := (tool.Parameter{Type: typ}).Check(in.Literal); err != nil {
			e := *tool.WrongLiteral(u.Name, in.Name, typ, in.Literal)
			c.report.failure(in.Where.At(&e), mendInputType(e.Message), u)
		}
	}
}

// connectionInput checks that a connection is there and of one of the classes.
func (c *checking) connectionInput(u *unit, in flow.NodeInput, classes []string) {
	name := value.Str(in.Literal)
	found, err := c.connections.Get(name)
	if err != nil {
		c.report.failure(in.Where.At(run.LoadFailure(u.Node, flow.Class{api.UserError, "ValidationError", "InvalidRequest", "GetConnectionError"}, "GetConnectionError",
			"Get connection '"+name+"' for node '"+u.Name+"' error: "+err.Error())), c.mendConnection(), u)
		return
	}
	if !slices.Contains(classes, found.Class) {
		list := strings.Join(classes, "', '")
		c.report.failure(in.Where.At(run.LoadFailure(u.Node, flow.Class{api.UserError, "ValidationError", "InvalidFlowRequest", "NodeInputValidationError"}, "NodeInputValidationError",
			"Input '"+in.Name+"' for node '"+u.Name+"' of type '"+found.Class+"' is not supported, valid types ['"+list+"'].")),
			"Name a connection of one of the types '"+list+"'.", u)
	}
}

// saidOfScript reports whether a script's mistake has been reported for another node that uses the script, and notes it.
func (c *checking) saidOfScript(key string) bool {
	if c.scripts[key] {
		return true
	}
	if c.scripts == nil {
		c.scripts = map[string]bool{}
	}
	c.scripts[key] = true
	return false
}

// mendTool says where a tool's error is and what to do.
func (c *checking) mendTool(u *unit, e *api.Error, answer *worker.CheckResult) (flow.Place, string) {
	switch e.Class() {
	case "InvalidSource":
		return u.pathPlace(), c.mendPath(u)
	case "NoToolDefined":
		return c.mendNoTool(u, answer.Outline)
	case "MultipleToolsDefined":
		return c.mendManyTools(u, answer.Outline)
	case "GetConnectionError":
		return u.connectionPlace(e.Message), c.mendConnection()
	case "NodeInputValidationError", "ValueTypeUnresolved":
		return u.inputPlace(e.Message), mendInputType(e.Message)
	case "MissingRequiredInputs":
		return u.Place, "Add them under the node's 'inputs', as literal values: the tool's class takes them when it is made."
	case "InputTypeMismatch":
		return u.inputPlace(e.Message), "Write a literal value: the tool's class takes it when it is made, before the flow runs."
	case "PackageToolNotFoundError":
		return u.fields.below("source").value(u.File, "tool", u.Source.Place), "Correct the tool's id, or build an environment with the package that has it."
	}
	if answer.Place != nil {
		return flow.Place{File: answer.Place.File, Line: answer.Place.Line, Column: answer.Place.Column}, c.mendCause(answer.Cause)
	}
	if answer.Cause != nil && u.Source.Path != "" {
		return c.script(u, 1), c.mendCause(answer.Cause)
	}
	return u.Place, ""
}

func (c *checking) mendPath(u *unit) string {
	if u.Source.Path == "" {
		return "Give the source a 'path' in the flow's folder."
	}
	ending := ".py"
	if u.Type != flow.Python {
		ending = ".jinja2"
	}
	return didYouMean(strings.TrimPrefix(u.Source.Path, "./"), c.folder.names(ending), quoted, "Add the file to the flow's folder, or correct the path; it is relative to that folder.")
}

func (c *checking) mendNoTool(u *unit, outline []worker.Outline) (flow.Place, string) {
	if len(outline) == 0 {
		return c.script(u, 1), "Add a function with @tool above it (from promptflow.core import tool)."
	}
	place := c.script(u, outline[0].Line)
	place.Column = outline[0].Column
	if outline[0].Tool {
		return place, "Import tool from promptflow.core: what stands above '" + outline[0].Name + "' is not prompt flow's."
	}
	return place, "Put @tool above the function that is the tool, such as '" + outline[0].Name + "' (from promptflow.core import tool)."
}

func (c *checking) mendManyTools(u *unit, outline []worker.Outline) (flow.Place, string) {
	place := c.script(u, 1)
	var tools []worker.Outline
	for _, o := range outline {
		if o.Tool {
			tools = append(tools, o)
		}
	}
	if len(tools) > 1 {
		place = c.script(u, tools[1].Line)
		place.Column = tools[1].Column
	}
	return place, "Keep @tool above one function, and move the others into files of their own."
}

// mendCause says what to do about an exception on import.
func (c *checking) mendCause(cause *worker.Cause) string {
	if cause == nil {
		return ""
	}
	switch cause.Class {
	case "ModuleNotFoundError":
		return c.mendModule(cause.Name)
	case "ImportError":
		return "Check that the name is there in the module, and in the version of it that this runtime has."
	case "SyntaxError", "IndentationError", "TabError":
		return "Correct the Python: " + cause.Message + "."
	default:
		return "Mend what runs when the file is imported: it raised " + cause.Class + "."
	}
}

func (c *checking) mendModule(name string) string {
	top, _, _ := strings.Cut(name, ".")
	var own []string
	for _, file := range c.folder.names(".py") {
		own = append(own, strings.ReplaceAll(strings.TrimSuffix(strings.TrimSuffix(file, ".py"), "/__init__"), "/", "."))
	}
	return didYouMean(name, own, quoted, "Build an environment with the package that has '"+top+"', or add "+top+".py to the flow's folder if it is the flow's own.")
}

// mendConnection names the connections there are.
func (c *checking) mendConnection() string {
	if c.connections == nil {
		return ""
	}
	names := c.connections.Names()
	if len(names) == 0 {
		return "Give the runtime a connections file that has it: it has none."
	}
	return "Use one of " + listed(names) + ", or add it to the runtime's connections."
}

func mendInputType(message string) string {
	if m := expectedType.FindStringSubmatch(message); m != nil {
		return "Write a value of type " + m[1] + ", or change the parameter's annotation."
	}
	if m := validTypes.FindStringSubmatch(message); m != nil {
		return "Name a connection of one of the types " + m[1] + "."
	}
	return "Correct the input's value."
}

var (
	expectedType = regexp.MustCompile(`is not type (\w+)\.?$`)
	validTypes   = regexp.MustCompile(`valid types \[(.*)\]`)
	inputName    = regexp.MustCompile(`(?i)\binput '([^']+)'`)
	getFailed    = regexp.MustCompile(`(?s)Get connection '(.*?)' for node`)
)

// inputPlace is the value of the input that a message is about.
func (u *unit) inputPlace(message string) flow.Place {
	for _, m := range inputName.FindAllStringSubmatch(message, -1) {
		if in := u.input(m[1]); in != nil {
			return in.Where
		}
	}
	return u.Place
}

// connectionPlace is where the connection that a message is about is named.
func (u *unit) connectionPlace(message string) flow.Place {
	if m := getFailed.FindStringSubmatch(message); m != nil {
		for _, in := range u.Inputs {
			if in.Kind == flow.Literal && value.Str(in.Literal) == m[1] {
				return in.Where
			}
		}
	}
	return u.fields.value(u.File, "connection", u.Place)
}

// signature checks a node's inputs against its tool's function. What a run would fail with is a TypeError in the tool.
func (c *checking) signature(u *unit, answer *worker.CheckResult) {
	function, where := u.Name, ""
	if answer.Function != nil {
		function = answer.Function.Name
		where = " (" + answer.Function.File + ":" + value.Str(int64(answer.Function.Line)) + ")"
	}
	for _, p := range answer.Tool.Parameters {
		if p.HasDefault || p.Name == "self" {
			continue
		}
		switch in := u.input(p.Name); {
		case in == nil:
			c.report.err(toolExecution, u.fields.key(u.File, "inputs", u.Place), u,
				"Node '"+u.Name+"' does not give '"+p.Name+"', which "+function+where+" needs: the call fails.", "Add '"+p.Name+"' under the node's 'inputs', or give the parameter a default.")
		case leftOut(*in):
			c.report.err(toolExecution, in.Where, u,
				"The input '"+p.Name+"' of node '"+u.Name+"' is empty, which prompt flow leaves out, and "+function+where+" needs it: the call fails.",
				"Write a value, or give the parameter a default.")
		}
	}
	c.unknownInputs(u, answer, function+where)
	c.inputTypes(u, answer)
}

// toolExecution is what a node fails with when its tool raises.
var toolExecution = flow.Class{api.UserError, "ToolExecutionError"}

func (c *checking) unknownInputs(u *unit, answer *worker.CheckResult, function string) {
	if answer.Tool.Kwargs {
		return
	}
	var known []string
	for _, p := range answer.Tool.Parameters {
		if p.Name != "self" {
			known = append(known, p.Name)
		}
	}
	known = append(known, answer.Init...)
	for _, in := range u.Inputs {
		if slices.Contains(known, in.Name) || leftOut(in) {
			continue
		}
		fallback := "Remove it: the function has no inputs."
		if len(known) > 0 {
			fallback = "Remove it, or use one of " + listed(known) + "."
		}
		c.report.err(toolExecution, in.Place, u, "Node '"+u.Name+"' gives '"+in.Name+"', which "+function+" does not take: the call fails.",
			didYouMean(in.Name, known, quoted, fallback))
	}
}

// inputTypes checks what a node hands over against the types of its tool's parameters. Prompt flow converts literals, which has been
// checked, and hands everything else on as it is.
func (c *checking) inputTypes(u *unit, answer *worker.CheckResult) {
	for _, in := range u.Inputs {
		definition, ok := answer.Inputs[in.Name]
		if !ok || len(definition.Type) == 0 {
			continue
		}
		switch source := c.draft.Flow.Input(in.Reference.Name); {
		case in.Kind == flow.FlowInput && source != nil && !compatible(source.Type, definition.Type[0]):
			c.report.warn("TypeMismatch", in.Where, u,
				"The flow input '"+source.Name+"' is of type "+source.Type+", and the parameter '"+in.Name+"' of "+definition.Type[0]+": it is handed on as it is.",
				"Give the flow input the type "+definition.Type[0]+", or change the parameter's annotation.")
		case in.Kind == flow.Literal && len(definition.Enum) > 0 && !leftOut(in) &&
			!slices.ContainsFunc(definition.Enum, func(v any) bool { return v == value.Str(in.Literal) }):
			c.report.warn("LiteralNotInEnum", in.Where, u, value.Repr(in.Literal)+" is not one of the values of parameter '"+in.Name+"'.",
				didYouMean(value.Str(in.Literal), enumTexts(definition.Enum), quoted, "Use one of "+listed(enumTexts(definition.Enum))+"."))
		}
	}
}

func enumTexts(values []any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i], _ = v.(string)
	}
	return out
}

// families are the types whose values a function of another type in the same family can take.
var families = map[string]int{
	"int": 1, "double": 1, "bool": 1,
	"string": 2, "secret": 2, "prompt_template": 2, "file_path": 2,
	"list": 3,
}

// compatible reports whether a value of a flow input's type may be meant for a parameter's type. Only what surely differs does not.
func compatible(input, parameter string) bool {
	a, b := families[input], families[parameter]
	return a == 0 || b == 0 || a == b
}
