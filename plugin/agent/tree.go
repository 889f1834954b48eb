package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	hcljson "github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// tree is a configuration's body as the JSON that an agent makes of it: attributes are their values, blocks lists of maps under their
// type and labels. It remembers where in the text each part came from, because the decoder sees the JSON only.
type tree struct {
	json  bytes.Buffer
	spans []span
	ctx   *hcl.EvalContext
}

// span is the JSON of one option: its first byte, the byte after its last, its name and its place in the text.
type span struct {
	start, end int
	option     string
	at         hcl.Pos
}

func newTree(body *hclsyntax.Body, ctx *hcl.EvalContext) (*tree, error) {
	t := &tree{ctx: ctx}
	if err := t.body(body, ""); err != nil {
		return nil, err
	}
	t.spans = append(t.spans, span{end: t.json.Len(), at: body.EndRange.Start})
	return t, nil
}

// body writes a body's members in the order of their names, which alone makes errors come in the same order each time.
func (t *tree) body(body *hclsyntax.Body, path string) error {
	blocks := map[string][]*hclsyntax.Block{}
	for _, block := range body.Blocks {
		if attr, both := body.Attributes[block.Type]; both {
			return problem(path+block.Type, block.TypeRange.Start, fmt.Errorf("it is an attribute at line %d already", attr.NameRange.Start.Line))
		}
		blocks[block.Type] = append(blocks[block.Type], block)
	}
	names := slices.Concat(slices.Collect(maps.Keys(body.Attributes)), slices.Collect(maps.Keys(blocks)))
	slices.Sort(names)
	t.json.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			t.json.WriteByte(',')
		}
		if err := t.member(name, path+name, body.Attributes[name], blocks[name]); err != nil {
			return err
		}
	}
	t.json.WriteByte('}')
	return nil
}

// member writes `"name": value`: of an attribute, or of all blocks of one type.
func (t *tree) member(name, path string, attr *hclsyntax.Attribute, blocks []*hclsyntax.Block) error {
	start := t.json.Len()
	t.key(name)
	if attr != nil {
		if err := t.value(path, attr); err != nil {
			return err
		}
		t.spans = append(t.spans, span{start: start, end: t.json.Len(), option: path, at: attr.NameRange.Start})
		return nil
	}
	t.json.WriteByte('[')
	for i, block := range blocks {
		if i > 0 {
			t.json.WriteByte(',')
		}
		if err := t.block(path, block); err != nil {
			return err
		}
	}
	t.json.WriteByte(']')
	t.spans = append(t.spans, span{start: start, end: t.json.Len(), option: path, at: blocks[0].TypeRange.Start})
	return nil
}

func (t *tree) block(path string, block *hclsyntax.Block) error {
	start := t.json.Len()
	for _, label := range block.Labels {
		t.json.WriteByte('{')
		t.key(label)
		t.json.WriteByte('[')
	}
	if err := t.body(block.Body, path+"."); err != nil {
		return err
	}
	t.json.WriteString(strings.Repeat("]}", len(block.Labels)))
	t.spans = append(t.spans, span{start: start, end: t.json.Len(), option: path, at: block.TypeRange.Start})
	return nil
}

func (t *tree) key(name string) {
	// A string always encodes.
	encoded, _ := json.Marshal(name)
	t.json.Write(escapeTemplates(encoded))
	t.json.WriteByte(':')
}

func (t *tree) value(path string, attr *hclsyntax.Attribute) error {
	value, diags := attr.Expr.Value(t.ctx)
	if diags.HasErrors() {
		return problem(path, position(diags[0], attr.NameRange.Start), described(diags))
	}
	encoded, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		return problem(path, attr.NameRange.Start, err)
	}
	t.json.Write(escapeTemplates(encoded))
	return nil
}

// escapeTemplates keeps text that is evaluated already from being evaluated again by the decoder.
func escapeTemplates(encoded []byte) []byte {
	return []byte(strings.NewReplacer("${", "$${", "%{", "%%{").Replace(string(encoded)))
}

func (t *tree) decode(spec hcldec.Spec) (cty.Value, hcl.Diagnostics) {
	file, diags := hcljson.Parse(t.json.Bytes(), "config")
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return hcldec.Decode(file.Body, spec, &hcl.EvalContext{Functions: functions})
}

// located says of each diagnostic which option in the text it is about.
func (t *tree) located(diags hcl.Diagnostics) error {
	var problems []error
	for _, diag := range diags {
		about := t.innermost(diag)
		problems = append(problems, problem(about.option, about.at, described(hcl.Diagnostics{diag})))
	}
	return oneLine(problems)
}

func (t *tree) innermost(diag *hcl.Diagnostic) span {
	found := t.spans[len(t.spans)-1]
	if diag.Subject == nil {
		return found
	}
	at := diag.Subject.Start.Byte
	for _, s := range t.spans {
		if s.start <= at && at < s.end && s.end-s.start < found.end-found.start {
			found = s
		}
	}
	return found
}

// inText says where the text is no HCL.
func inText(diags hcl.Diagnostics) error {
	var problems []error
	for _, diag := range diags {
		problems = append(problems, problem("", position(diag, hcl.InitialPos), described(hcl.Diagnostics{diag})))
	}
	return oneLine(problems)
}

func described(diags hcl.Diagnostics) error {
	var problems []error
	for _, diag := range diags {
		text := diag.Summary
		// Places that the detail tells are places in the JSON, which the reader never sees.
		if detail, _, _ := strings.Cut(diag.Detail, " Previous definition was at "); detail != "" {
			text += ": " + detail
		}
		problems = append(problems, errors.New(text))
	}
	return oneLine(problems)
}

func position(diag *hcl.Diagnostic, otherwise hcl.Pos) hcl.Pos {
	if diag.Subject == nil {
		return otherwise
	}
	return diag.Subject.Start
}

func problem(option string, at hcl.Pos, err error) error {
	if option == "" {
		return fmt.Errorf("line %d, column %d: %w", at.Line, at.Column, err)
	}
	return fmt.Errorf("option %q at line %d, column %d: %w", option, at.Line, at.Column, err)
}

func oneLine(problems []error) error {
	texts := make([]string, len(problems))
	for i, p := range problems {
		texts[i] = p.Error()
	}
	return errors.New(strings.Join(texts, "; "))
}
