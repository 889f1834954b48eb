package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"github.com/zclconf/go-cty/cty/msgpack"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// functions are those that an agent offers inside a plugin's and a task's configuration.
var functions = map[string]function.Function{
	"abs":        stdlib.AbsoluteFunc,
	"coalesce":   stdlib.CoalesceFunc,
	"concat":     stdlib.ConcatFunc,
	"hasindex":   stdlib.HasIndexFunc,
	"int":        stdlib.IntFunc,
	"jsondecode": stdlib.JSONDecodeFunc,
	"jsonencode": stdlib.JSONEncodeFunc,
	"length":     stdlib.LengthFunc,
	"lower":      stdlib.LowerFunc,
	"max":        stdlib.MaxFunc,
	"min":        stdlib.MinFunc,
	"reverse":    stdlib.ReverseFunc,
	"strlen":     stdlib.StrlenFunc,
	"substr":     stdlib.SubstrFunc,
	"upper":      stdlib.UpperFunc,
}

// DecodeConfig decodes the HCL text of a config block's body by the plugin's schema into the bytes that go over the wire. Vars are the
// names an agent interpolates ("NOMAD_ALLOC_ID", "attr.kernel.name", "meta.rack"). An error names the option, its line and its column.
//
// It goes the agent's way: the body becomes a JSON-like tree first, in which a block is a list of maps, and the tree is decoded. That is
// why some types take block syntax and some do not.
func DecodeConfig(schema *hclspec.Spec, text string, vars map[string]string) ([]byte, error) {
	if schema == nil {
		return nil, errors.New("decode configuration: the plugin has no schema, so it takes none")
	}
	spec, err := decodeSpec(schema, "")
	if err != nil {
		return nil, fmt.Errorf("read the plugin's schema: %w", err)
	}
	file, diags := hclsyntax.ParseConfig([]byte(text), "config", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("parse configuration: %w", diags)
	}
	body := file.Body.(*hclsyntax.Body)
	tree, err := bodyTree(body, &hcl.EvalContext{Variables: variables(vars), Functions: functions})
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	jsonFile, diags := hcljson.Parse(encoded, "config")
	if diags.HasErrors() {
		return nil, fmt.Errorf("parse configuration: %w", diags)
	}
	value, diags := hcldec.Decode(jsonFile.Body, spec, &hcl.EvalContext{Functions: functions})
	if diags.HasErrors() {
		return nil, located(diags, body)
	}
	wire, err := msgpack.Marshal(value, value.Type())
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return wire, nil
}

// variables nests dotted names. A name that would stand below a plain value is left out, as the agent does.
func variables(vars map[string]string) map[string]cty.Value {
	names := make([]string, 0, len(vars))
	for name := range vars {
		names = append(names, name)
	}
	sort.Strings(names)
	tree := map[string]any{}
	for _, name := range names {
		nest(tree, strings.Split(name, "."), vars[name])
	}
	out := map[string]cty.Value{}
	for name, value := range tree {
		out[name] = nested(value)
	}
	return out
}

func nest(tree map[string]any, path []string, value string) {
	if len(path) == 1 {
		if _, taken := tree[path[0]]; !taken {
			tree[path[0]] = value
		}
		return
	}
	below, ok := tree[path[0]].(map[string]any)
	if !ok {
		if _, taken := tree[path[0]]; taken {
			return
		}
		below = map[string]any{}
		tree[path[0]] = below
	}
	nest(below, path[1:], value)
}

func nested(value any) cty.Value {
	if text, ok := value.(string); ok {
		return cty.StringVal(text)
	}
	members := map[string]cty.Value{}
	for name, member := range value.(map[string]any) {
		members[name] = nested(member)
	}
	return cty.ObjectVal(members)
}

// bodyTree evaluates a body: attributes to their values, blocks to lists of trees under their type and labels.
func bodyTree(body *hclsyntax.Body, ctx *hcl.EvalContext) (map[string]any, error) {
	tree := map[string]any{}
	for name, attr := range body.Attributes {
		value, diags := attr.Expr.Value(ctx)
		if diags.HasErrors() {
			return nil, fmt.Errorf("option %q at line %d, column %d: %w", name, attr.NameRange.Start.Line, attr.NameRange.Start.Column, diags)
		}
		encoded, err := ctyjson.Marshal(value, value.Type())
		if err != nil {
			return nil, fmt.Errorf("option %q at line %d: %w", name, attr.NameRange.Start.Line, err)
		}
		tree[name] = json.RawMessage(escapeTemplates(encoded))
	}
	for _, block := range body.Blocks {
		below, err := bodyTree(block.Body, ctx)
		if err != nil {
			return nil, err
		}
		var member any = below
		for i := len(block.Labels) - 1; i >= 0; i-- {
			member = map[string]any{block.Labels[i]: []any{member}}
		}
		list, _ := tree[block.Type].([]any)
		tree[block.Type] = append(list, member)
	}
	return tree, nil
}

// escapeTemplates keeps text that is evaluated already from being evaluated again.
func escapeTemplates(encoded []byte) []byte {
	return []byte(strings.NewReplacer("${", "$${", "%{", "%%{").Replace(string(encoded)))
}

// located says where in the text the options stand that the diagnostics speak of. The decoder itself saw the tree, not the text.
func located(diags hcl.Diagnostics, body *hclsyntax.Body) error {
	var problems []string
	for _, diag := range diags {
		text := diag.Summary
		if diag.Detail != "" {
			text += ": " + diag.Detail
		}
		if name, at, ok := spokenOf(diag, body); ok {
			text = fmt.Sprintf("option %q at line %d, column %d: %s", name, at.Line, at.Column, text)
		}
		problems = append(problems, text)
	}
	return fmt.Errorf("decode configuration: %s", strings.Join(problems, "; "))
}

// spokenOf finds the innermost option whose quoted name the diagnostic holds.
func spokenOf(diag *hcl.Diagnostic, body *hclsyntax.Body) (string, hcl.Pos, bool) {
	for _, block := range body.Blocks {
		if name, at, ok := spokenOf(diag, block.Body); ok {
			return block.Type + "." + name, at, true
		}
		if quotes(diag, block.Type) {
			return block.Type, block.TypeRange.Start, true
		}
	}
	for name, attr := range body.Attributes {
		if quotes(diag, name) {
			return name, attr.NameRange.Start, true
		}
	}
	return "", hcl.Pos{}, false
}

func quotes(diag *hcl.Diagnostic, name string) bool {
	return strings.Contains(diag.Detail, `"`+name+`"`) || strings.Contains(diag.Summary, `"`+name+`"`)
}
