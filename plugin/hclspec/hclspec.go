// Package hclspec builds the schemas by which an agent decodes a plugin's and a task's configuration.
//
// A schema is a tree of [Spec]. Types are HCL type expressions: any, string, number, bool, list(T), set(T), map(T),
// object({…}) and tuple([…]). Every attribute and block carries its name, also where the protocol would imply
// it from the object's key, because the implied name is lost inside [Default].
//
// What a value arrives as in the plugin is the table in plugin/agent's golden test: missing attributes and blocks are nil,
// missing block lists empty, numbers that float64 cannot hold exactly are strings. [BlockAttrs] takes both `x { k = "v" }` and
// `x = { k = "v" }`, and so is the best choice for maps.
package hclspec

import (
	"fmt"
	"strconv"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	pb "github.com/nomad-promptflow/nomad-promptflow/plugin/proto/hclspec"
)

// Spec is one node of a schema, in the protocol's form.
type Spec = pb.Spec

// Object is a body with the given members.
func Object(members map[string]*Spec) *Spec {
	return &Spec{Block: &pb.Spec_Object{Object: &pb.Object{Attributes: members}}}
}

// Array is a fixed sequence of values.
func Array(values ...*Spec) *Spec {
	return &Spec{Block: &pb.Spec_Array{Array: &pb.Array{Values: values}}}
}

// Attr is an attribute `name = value` of a type.
func Attr(name, typ string, required bool) *Spec {
	return &Spec{Block: &pb.Spec_Attr{Attr: &pb.Attr{Name: name, Type: typ, Required: required}}}
}

// Block is a block `name { }` that may stand once.
func Block(name string, required bool, nested *Spec) *Spec {
	return &Spec{Block: &pb.Spec_BlockValue{BlockValue: &pb.Block{Name: name, Required: required, Nested: nested}}}
}

// BlockAttrs is a block of free attributes of one type, which may be written as an attribute too.
func BlockAttrs(name, typ string, required bool) *Spec {
	return &Spec{Block: &pb.Spec_BlockAttrs{BlockAttrs: &pb.BlockAttrs{Name: name, Type: typ, Required: required}}}
}

// BlockList is a block that may be repeated, in order. Most is the largest count; 0 sets no limit.
func BlockList(name string, least, most uint64, nested *Spec) *Spec {
	return &Spec{Block: &pb.Spec_BlockList{BlockList: &pb.BlockList{Name: name, MinItems: least, MaxItems: most, Nested: nested}}}
}

// BlockSet is a block that may be repeated, without order.
func BlockSet(name string, least, most uint64, nested *Spec) *Spec {
	return &Spec{Block: &pb.Spec_BlockSet{BlockSet: &pb.BlockSet{Name: name, MinItems: least, MaxItems: most, Nested: nested}}}
}

// BlockMap is a block that may be repeated under labels.
func BlockMap(name string, labels []string, nested *Spec) *Spec {
	return &Spec{Block: &pb.Spec_BlockMap{BlockMap: &pb.BlockMap{Name: name, Labels: labels, Nested: nested}}}
}

// Literal is a fixed value, written as an HCL expression.
func Literal(expression string) *Spec {
	return &Spec{Block: &pb.Spec_Literal{Literal: &pb.Literal{Value: expression}}}
}

// Default is primary, or fallback where primary is missing or null.
func Default(primary, fallback *Spec) *Spec {
	return &Spec{Block: &pb.Spec_Default{Default: &pb.Default{Primary: primary, Default: fallback}}}
}

// String is an optional string attribute.
func String(name, fallback string) *Spec {
	return Default(Attr(name, "string", false), Literal(quote(fallback)))
}

// quote writes text as an HCL string, in which templates and escapes are not Go's.
func quote(text string) string {
	return string(hclwrite.TokensForValue(cty.StringVal(text)).Bytes())
}

// Number is an optional whole number attribute. Fractions do not survive the wire: use a string for them.
func Number(name string, fallback int64) *Spec {
	return Default(Attr(name, "number", false), Literal(fmt.Sprint(fallback)))
}

// Bool is an optional boolean attribute.
func Bool(name string, fallback bool) *Spec {
	return Default(Attr(name, "bool", false), Literal(strconv.FormatBool(fallback)))
}
