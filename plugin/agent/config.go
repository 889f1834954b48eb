package agent

import (
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
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
// It goes the agent's way: the body becomes a JSON tree first, in which a block is a list of maps, and the tree is decoded. That is
// why some types take block syntax and some do not. Numbers that float64 cannot hold exactly arrive as strings.
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
		return nil, fmt.Errorf("parse configuration: %w", inText(diags))
	}
	tree, err := newTree(file.Body.(*hclsyntax.Body), &hcl.EvalContext{Variables: variables(vars), Functions: functions})
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	value, diags := tree.decode(spec)
	if diags.HasErrors() {
		return nil, fmt.Errorf("decode configuration: %w", tree.located(diags))
	}
	wire, err := msgpack.Marshal(value, value.Type())
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return wire, nil
}
