package validate

import (
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// inputs checks the flow's inputs: defaults against types, and the rules of chats.
func (c *checking) inputs() {
	inputs := fields{c.draft.Document}.below("inputs")
	for _, in := range c.draft.Flow.Inputs {
		definition := inputs.below(in.Name)
		at := definition.value(c.draft.File, "default", in.Place)
		if in.Default != nil && in.Type != "" {
			c.defaultOf(in, at)
		}
		if in.IsChatHistory && in.Type != "" && in.Type != "list" {
			c.report.warn("ChatHistoryType", definition.value(c.draft.File, "type", in.Place), nil,
				"The chat history '"+in.Name+"' is of type "+in.Type+", and what keeps it makes it a list.", "Write 'type: list'.")
		}
	}
	c.chat()
}

// defaultOf checks a default as a run would convert it.
func (c *checking) defaultOf(in *flow.Input, at flow.Place) {
	_, err := in.Convert(in.Default, nil)
	if err == nil {
		c.choice(in, at)
		return
	}
	e := *asError(err)
	c.report.failure(at.At(&e), "Write a default of type "+in.Type+", or give the input another type; "+value.Repr(in.Default)+" is not one.", nil)
}

// choice checks a default against the input's enum, which prompt flow does not enforce.
func (c *checking) choice(in *flow.Input, at flow.Place) {
	field := fields{c.draft.Document}.below("inputs").below(in.Name).node.Get("enum")
	if field == nil {
		return
	}
	v, err := field.Value.Value()
	list, ok := v.([]any)
	if err != nil || !ok || len(list) == 0 || slices.ContainsFunc(list, func(item any) bool { return value.Equal(item, in.Default) }) {
		return
	}
	c.report.warn("DefaultNotInEnum", at, nil, "The default "+value.Repr(in.Default)+" of flow input '"+in.Name+"' is not one of its enum.",
		"Add it to the enum, or take one of "+value.Repr(v)+".")
}

// chat checks what a flow must have to be a chat, if it means to be one (prompt flow's is_executable_chat_flow).
func (c *checking) chat() {
	f := c.draft.Flow
	var questions []*flow.Input
	history := false
	for _, in := range f.Inputs {
		if in.IsChatInput {
			questions = append(questions, in)
		}
		history = history || in.IsChatHistory
	}
	var answers []*flow.Output
	for _, out := range f.Outputs {
		if out.IsChatOutput {
			answers = append(answers, out)
		}
	}
	const not = "It is not run as a chat."
	if len(questions) > 1 {
		c.report.warn("ChatFlowIncomplete", questions[1].Place, nil, "The flow has "+plural(len(questions), "chat input")+", and a chat has one. "+not,
			"Leave 'is_chat_input: true' to one of "+listed(inputNames(questions))+".")
	}
	if len(answers) > 1 {
		c.report.warn("ChatFlowIncomplete", answers[1].Place, nil, "The flow has "+plural(len(answers), "chat output")+", and a chat has one. "+not,
			"Leave 'is_chat_output: true' to one of them.")
	}
	if len(questions) != 1 || len(answers) > 1 {
		return
	}
	if len(answers) == 0 && len(f.Outputs) > 0 {
		c.report.warn("ChatFlowIncomplete", questions[0].Place, nil, "The flow has the chat input '"+questions[0].Name+"' and no chat output. "+not,
			"Give the output that is the answer 'is_chat_output: true'.")
	}
	if !history {
		c.report.warn("ChatFlowIncomplete", questions[0].Place, nil, "The flow has the chat input '"+questions[0].Name+"' and no chat history. "+not,
			"Add an input 'chat_history' with 'type: list' and 'is_chat_history: true'.")
	}
}

func inputNames(inputs []*flow.Input) []string {
	names := make([]string, len(inputs))
	for i, in := range inputs {
		names[i] = in.Name
	}
	return names
}

// outputs checks the flow's outputs.
func (c *checking) outputs() {
	for _, out := range c.draft.Flow.Outputs {
		switch n := c.draft.Flow.Node(out.Reference.Name); {
		case out.Reference.Kind == flow.NodeOutput && n != nil && n.Aggregation:
			c.report.warn("OutputOfAggregation", out.Where, nil,
				"The flow output '"+out.Name+"' refers to aggregation node '"+n.Name+"' and is left out: aggregation runs after all lines, and has no output.",
				"Remove the output, and let the node log a metric with log_metric.")
		case out.Reference.Kind == flow.Literal && out.Reference.Literal != "":
			c.literalOutput(out)
		}
	}
}

func (c *checking) literalOutput(out *flow.Output) {
	shown := short(value.Str(out.Reference.Literal))
	mend := "Write a reference, such as ${inputs.name} or ${node.output}."
	inner := strings.Trim(value.Str(out.Reference.Literal), "${} ")
	if strings.HasPrefix(inner, "inputs.") || c.draft.Flow.Node(strings.SplitN(inner, ".", 2)[0]) != nil {
		mend = "Write ${" + inner + "}."
	}
	c.report.warn("LiteralOutput", out.Where, nil, "The reference "+shown+" of flow output '"+out.Name+"' is no reference: the output is always this text.", mend)
}

// unused warns of nodes and inputs that nothing refers to.
func (c *checking) unused() {
	nodes, inputs := map[string]bool{}, map[string]bool{}
	note := func(r flow.Reference) {
		switch r.Kind {
		case flow.NodeOutput:
			markUsed(nodes, r.Name, nodeNames(c.draft.Flow))
		case flow.FlowInput:
			markUsed(inputs, r.Name, inputNames(c.draft.Flow.Inputs))
		}
	}
	for _, u := range c.units {
		for _, in := range u.Inputs {
			note(in.Reference)
		}
		if u.Activate != nil {
			note(u.Activate.When)
		}
	}
	for _, out := range c.draft.Flow.Outputs {
		note(out.Reference)
	}
	for _, in := range c.draft.Flow.Inputs {
		if !inputs[in.Name] && !in.IsChatHistory {
			c.report.warn("UnusedInput", in.Place, nil, "Nothing uses the flow input '"+in.Name+"'.", "Remove it, or refer to it as ${inputs."+in.Name+"}.")
		}
	}
	if len(c.draft.Flow.Outputs) == 0 {
		return // it is run for what its nodes do
	}
	for _, n := range c.draft.Flow.Nodes {
		if !nodes[n.Name] && !n.Aggregation {
			c.report.warn("UnusedNode", n.Place, c.unitAt(&apiLocation{File: n.File, Line: n.Line, Column: n.Column}),
				"Nothing uses the output of node '"+n.Name+"'; it runs all the same.", "Remove the node, or refer to it as ${"+n.Name+".output}.")
		}
	}
}

// markUsed notes a name as used; where there is no such name, the one that was meant.
func markUsed(used map[string]bool, name string, names []string) {
	used[name] = true
	if slices.Contains(names, name) {
		return
	}
	for _, n := range near(name, names) {
		used[n] = true
	}
}

// variants checks that nodes have the variants that they use.
func (c *checking) variants() {
	root := fields{c.draft.Document}
	all := root.below("node_variants")
	ids := map[string][]string{}
	for _, v := range c.draft.Variants {
		ids[v.Node.Name] = append(ids[v.Node.Name], v.ID)
	}
	users := map[string]bool{}
	for _, n := range c.draft.Flow.Nodes {
		users[n.Name] = true
	}
	for _, f := range all.list() {
		v := fields{f.Value}
		field := v.node.Get("default_variant_id")
		choices := ids[f.Key]
		switch chosen := textOf(field); {
		case !users[f.Key]:
			c.report.warn("UnusedVariants", c.keyPlace(&f), nil, "There are variants of node '"+f.Key+"', and no such node.",
				didYouMean(f.Key, nodeNames(c.draft.Flow), quoted, "Remove them, or add a node '"+f.Key+"' with 'use_variants: true'."))
		case chosen == "":
			c.report.err(invalidFlow, c.keyPlace(&f), nil, "Default variant id is not specified for "+f.Key+".",
				"Add 'default_variant_id' with one of "+listed(choices)+".")
		case !slices.Contains(choices, chosen):
			c.report.err(invalidFlow, c.valuePlace(field), nil, "Cannot find the variant "+chosen+" for "+f.Key+".",
				didYouMean(chosen, choices, quoted, "Take one of "+listed(choices)+"."))
		}
	}
	c.useOfVariants(ids)
}

// invalidFlow is what prompt flow's SDK raises for variants that are not there.
var invalidFlow = flow.Class{"UserError", "SDKError", "InvalidFlowError"}

func (c *checking) useOfVariants(ids map[string][]string) {
	for _, item := range c.nodeFields() {
		name, field := textOf(item.node.Get("name")), item.node.Get("use_variants")
		uses := truthOf(field)
		switch {
		case uses && len(ids[name]) == 0:
			c.report.err(invalidFlow, c.keyPlace(field), nil, "No variant for the node "+name+".",
				"Add its variants under 'node_variants', or write its body here without 'use_variants'.")
		case !uses && len(ids[name]) > 0:
			at := flow.Place{File: c.draft.File, Line: item.node.Line, Column: item.node.Column}
			c.report.warn("UnusedVariants", at, nil, "Node '"+name+"' has variants and does not use them.", "Add 'use_variants: true' to the node.")
		}
	}
}
