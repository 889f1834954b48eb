package jobspecs

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// render writes a body anew with the values of its expressions, in the order of the file. What is null is left out, as Nomad
// leaves it out.
func render(body hcl.Body, ctx *hcl.EvalContext) (string, error) {
	syntax, ok := body.(*hclsyntax.Body)
	if !ok {
		return "", fmt.Errorf("render body of type %T: only HCL's own syntax can be", body)
	}
	out := hclwrite.NewEmptyFile()
	if err := renderBody(syntax, ctx, out.Body()); err != nil {
		return "", err
	}
	return string(hclwrite.Format(out.Bytes())), nil
}

func renderBody(body *hclsyntax.Body, ctx *hcl.EvalContext, out *hclwrite.Body) error {
	for _, attr := range inOrder(body.Attributes) {
		value, diags := attr.Expr.Value(ctx)
		if diags.HasErrors() {
			return fmt.Errorf("evaluate %s: %w", attr.Name, diags)
		}
		if !value.IsNull() {
			out.SetAttributeValue(attr.Name, value)
		}
	}
	for _, block := range body.Blocks {
		if err := renderBody(block.Body, ctx, out.AppendNewBlock(block.Type, block.Labels).Body()); err != nil {
			return fmt.Errorf("%s: %w", block.Type, err)
		}
	}
	return nil
}

func inOrder(attributes hclsyntax.Attributes) []*hclsyntax.Attribute {
	ordered := make([]*hclsyntax.Attribute, 0, len(attributes))
	for _, attr := range attributes {
		ordered = append(ordered, attr)
	}
	slices.SortFunc(ordered, func(a, b *hclsyntax.Attribute) int { return cmp.Compare(a.SrcRange.Start.Byte, b.SrcRange.Start.Byte) })
	return ordered
}
