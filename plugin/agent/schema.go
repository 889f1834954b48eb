package agent

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
	pb "github.com/nomad-promptflow/nomad-promptflow/plugin/proto/hclspec"
)

// decodeSpec turns a plugin's schema into what hcldec decodes by. Name is the name that an object's key implies.
func decodeSpec(spec *hclspec.Spec, name string) (hcldec.Spec, error) {
	switch block := spec.GetBlock().(type) {
	case *pb.Spec_Object:
		return decodeObject(block.Object)
	case *pb.Spec_Array:
		return decodeArray(block.Array)
	case *pb.Spec_Attr:
		return decodeAttr(block.Attr, name)
	case *pb.Spec_BlockValue:
		nested, err := decodeSpec(block.BlockValue.GetNested(), "")
		return &hcldec.BlockSpec{TypeName: named(block.BlockValue.GetName(), name), Required: block.BlockValue.GetRequired(), Nested: nested}, err
	case *pb.Spec_BlockAttrs:
		typ, err := typeOf(block.BlockAttrs.GetType())
		return &hcldec.BlockAttrsSpec{TypeName: named(block.BlockAttrs.GetName(), name), Required: block.BlockAttrs.GetRequired(), ElementType: typ}, err
	case *pb.Spec_BlockList:
		nested, err := decodeSpec(block.BlockList.GetNested(), "")
		return &hcldec.BlockListSpec{
			TypeName: named(block.BlockList.GetName(), name), Nested: nested,
			MinItems: int(block.BlockList.GetMinItems()), MaxItems: int(block.BlockList.GetMaxItems()),
		}, err
	case *pb.Spec_BlockSet:
		nested, err := decodeSpec(block.BlockSet.GetNested(), "")
		return &hcldec.BlockSetSpec{
			TypeName: named(block.BlockSet.GetName(), name), Nested: nested,
			MinItems: int(block.BlockSet.GetMinItems()), MaxItems: int(block.BlockSet.GetMaxItems()),
		}, err
	case *pb.Spec_BlockMap:
		nested, err := decodeSpec(block.BlockMap.GetNested(), "")
		return &hcldec.BlockMapSpec{TypeName: named(block.BlockMap.GetName(), name), LabelNames: block.BlockMap.GetLabels(), Nested: nested}, err
	case *pb.Spec_Default:
		return decodeDefault(block.Default)
	case *pb.Spec_Literal:
		return decodeLiteral(block.Literal)
	default:
		return nil, fmt.Errorf("schema of %q: empty or unknown kind %T", name, block)
	}
}

func named(name, implied string) string {
	if name != "" {
		return name
	}
	return implied
}

func decodeObject(object *pb.Object) (hcldec.Spec, error) {
	out := hcldec.ObjectSpec{}
	for key, member := range object.GetAttributes() {
		spec, err := decodeSpec(member, key)
		if err != nil {
			return nil, err
		}
		out[key] = spec
	}
	return out, nil
}

func decodeArray(array *pb.Array) (hcldec.Spec, error) {
	out := hcldec.TupleSpec{}
	for _, value := range array.GetValues() {
		spec, err := decodeSpec(value, "")
		if err != nil {
			return nil, err
		}
		out = append(out, spec)
	}
	return out, nil
}

func decodeAttr(attr *pb.Attr, implied string) (hcldec.Spec, error) {
	name := named(attr.GetName(), implied)
	if name == "" {
		return nil, fmt.Errorf("schema: an attribute of type %q has no name", attr.GetType())
	}
	typ, err := typeOf(attr.GetType())
	if err != nil {
		return nil, fmt.Errorf("schema of %q: %w", name, err)
	}
	return &hcldec.AttrSpec{Name: name, Type: typ, Required: attr.GetRequired()}, nil
}

func decodeDefault(d *pb.Default) (hcldec.Spec, error) {
	primary, err := decodeSpec(d.GetPrimary(), "")
	if err != nil {
		return nil, err
	}
	fallback, err := decodeSpec(d.GetDefault(), "")
	if err != nil {
		return nil, err
	}
	return &hcldec.DefaultSpec{Primary: primary, Default: fallback}, nil
}

func decodeLiteral(literal *pb.Literal) (hcldec.Spec, error) {
	expr, diags := hclsyntax.ParseExpression([]byte(literal.GetValue()), "schema", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fmt.Errorf("schema: literal %q: %w", literal.GetValue(), diags)
	}
	value, diags := expr.Value(&hcl.EvalContext{Functions: functions})
	if diags.HasErrors() {
		return nil, fmt.Errorf("schema: literal %q: %w", literal.GetValue(), diags)
	}
	return &hcldec.LiteralSpec{Value: value}, nil
}

func typeOf(expression string) (cty.Type, error) {
	expr, diags := hclsyntax.ParseExpression([]byte(expression), "schema", hcl.InitialPos)
	if diags.HasErrors() {
		return cty.DynamicPseudoType, fmt.Errorf("type %q: %w", expression, diags)
	}
	typ, diags := typeexpr.TypeConstraint(expr)
	if diags.HasErrors() {
		return cty.DynamicPseudoType, fmt.Errorf("type %q: %w", expression, diags)
	}
	return typ, nil
}
