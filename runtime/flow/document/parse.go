package document

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Parse reads a text with one YAML document. An empty document is a null node. Errors are *Error.
func Parse(text []byte) (*Node, error) { return parse(text, nil) }

// ParseAll is Parse for those who want every mistake that can be read past: of a key that stands twice the first is kept.
func ParseAll(text []byte, report func(*Error)) (*Node, error) { return parse(text, report) }

func parse(text []byte, report func(*Error)) (node *Node, err error) {
	if len(text) > MaxBytes {
		return nil, &Error{Message: fmt.Sprintf("the document has %d bytes, more than the %d that are read", len(text), MaxBytes), Line: 1, Column: 1}
	}
	if !utf8.Valid(text) {
		return nil, invalidUTF8(text)
	}
	defer func() {
		// The parser is a library that reads what strangers wrote; a mistake in it must not end the process.
		if r := recover(); r != nil {
			node, err = nil, &Error{Message: fmt.Sprintf("the document cannot be read: %v", r), Line: 1, Column: 1}
		}
	}()
	tokens := tokenize(strings.TrimPrefix(string(text), "\uFEFF"))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxError(err)
	}
	return compose(file, report)
}

func invalidUTF8(text []byte) error {
	line, column := 1, 1
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
		column++
		if r == '\n' || r == '\r' && (i == len(text) || text[i] != '\n') {
			line, column = line+1, 1
		}
	}
	return &Error{Message: "the text is not UTF-8: save the file as UTF-8", Line: line, Column: column}
}

func syntaxError(err error) error {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		p := e.GetToken().Position
		return &Error{Message: e.GetMessage(), Line: p.Line, Column: p.Column}
	}
	return &Error{Message: err.Error(), Line: 1, Column: 1}
}

// checkTokens refuses nesting that would make the recursive parser deep: brackets are counted; in block style every level
// needs a column of its own. It also refuses what the parser is known to read wrongly.
func checkTokens(tokens token.Tokens) error {
	depth := 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			depth++
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType:
			if depth == 0 && t.Type != token.MappingValueType && t.Position.Column > 2*maxDepth || t.Position.IndentNum > 8*maxDepth {
				return tooDeep(t)
			}
		case token.TagType, token.AnchorType:
			if t.Position.Column > 64*maxDepth {
				return tooDeep(t)
			}
		}
		if depth > maxDepth {
			return tooDeep(t)
		}
		if depth > 0 && tightColon(t) {
			return &Error{Message: "a colon without a space behind it inside brackets: put the text in quotes, or a space behind the colon", Line: t.Position.Line, Column: t.Position.Column}
		}
	}
	return nil
}

// tightColon finds {a:b: c}, where YAML 1.2 has the key "a:b" and the library has "a".
func tightColon(t *token.Token) bool {
	if t.Type != token.MappingValueType || t.Prev == nil || t.Next == nil {
		return false
	}
	if t.Prev.Indicator == token.QuotedScalarIndicator || t.Prev.CharacterType == token.CharacterTypeIndicator || t.Next.Indicator == token.FlowCollectionIndicator {
		return false
	}
	return t.Next.Position.Line == t.Position.Line && t.Next.Position.Column == t.Position.Column+1
}

func tooDeep(t *token.Token) error {
	return &Error{Message: fmt.Sprintf("values are nested deeper than %d levels", maxDepth), Line: t.Position.Line, Column: t.Position.Column}
}

func compose(file *ast.File, report func(*Error)) (*Node, error) {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if _, directive := doc.Body.(*ast.DirectiveNode); directive {
			continue
		}
		if body != nil {
			p := position(doc.Body)
			return nil, &Error{Message: "expected a single document, but found another document", Line: p.Line, Column: p.Column}
		}
		body = doc.Body
	}
	if body == nil {
		return &Node{Kind: Scalar, Line: 1, Column: 1}, nil
	}
	c := composer{anchors: map[string]*Node{}, sizes: map[*Node]int{}, report: report}
	return c.node(body, 0)
}

// composer turns the library's tree into nodes; aliases become shared nodes, whose sizes are counted each time.
type composer struct {
	anchors map[string]*Node
	sizes   map[*Node]int
	total   int
	report  func(*Error) // takes duplicate keys, which are then passed over; nil: they are errors
}

func position(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		return v.Key.GetToken().Position
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position
	}
	return &token.Position{Line: 1, Column: 1}
}

func (c *composer) node(n ast.Node, depth int) (*Node, error) {
	if n == nil {
		return &Node{Kind: Scalar}, nil
	}
	p := position(n)
	out := &Node{Line: p.Line, Column: p.Column}
	if depth > maxDepth {
		return nil, out.errorf("values are nested deeper than %d levels", maxDepth)
	}
	before := c.total
	out, err := c.fill(out, n, depth)
	if err != nil {
		return nil, err
	}
	if c.total++; c.total > maxNodes {
		return nil, out.errorf("the document has more than %d values", maxNodes)
	}
	c.sizes[out] = c.total - before
	return out, nil
}

func (c *composer) fill(out *Node, n ast.Node, depth int) (*Node, error) {
	switch n := n.(type) {
	case *ast.AnchorNode:
		return c.anchor(n, depth)
	case *ast.AliasNode:
		return c.alias(out, n)
	case *ast.TagNode:
		return c.tagged(out, n, depth)
	case *ast.MappingNode:
		return c.mapping(out, n.Values, depth)
	case *ast.MappingValueNode:
		return c.mapping(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		return c.sequence(out, n, depth)
	case *ast.LiteralNode:
		out.scalar = n.Value.Value
		return out, nil
	default:
		return c.scalar(out, n)
	}
}

func (c *composer) scalar(out *Node, n ast.Node) (*Node, error) {
	t := n.GetToken()
	if s, ok := n.(*ast.StringNode); ok && (t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType) {
		out.scalar = s.Value
		return out, nil
	}
	text, ok := scalarText(n)
	if !ok {
		return nil, out.errorf("cannot read %s here", strings.ToLower(n.Type().String()))
	}
	v, date, ok := plain(text)
	switch {
	case !ok:
		return nil, out.errorf("%s is no number that can be read", text)
	case date:
		out.date = text
	default:
		out.scalar = v
	}
	return out, nil
}

// scalarText returns an unquoted scalar as it was written.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.NullNode:
		if n.Token.Type == token.ImplicitNullType {
			return "", true
		}
		return n.Token.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	default:
		return "", false
	}
}

func (c *composer) anchor(n *ast.AnchorNode, depth int) (*Node, error) {
	out, err := c.node(n.Value, depth+1)
	if err == nil {
		c.anchors[n.Name.GetToken().Value] = out
	}
	return out, err
}

func (c *composer) alias(out *Node, n *ast.AliasNode) (*Node, error) {
	name := n.Value.GetToken().Value
	target, ok := c.anchors[name]
	if !ok {
		return nil, out.errorf("found undefined alias %q", name)
	}
	c.total += c.sizes[target]
	return target, nil
}

// tagged reads YAML's own tags; others are kept by name and refused where the value is used.
func (c *composer) tagged(out *Node, n *ast.TagNode, depth int) (*Node, error) {
	tag := n.Start.Value
	inner, err := c.node(n.Value, depth+1)
	if err != nil {
		return nil, err
	}
	switch {
	case tag == "!!str" && inner.Kind == Scalar:
		text, isText := inner.scalar.(string)
		if plainText, ok := scalarText(n.Value); ok && !isText {
			text = plainText
		}
		inner.scalar, inner.date = text, ""
	case tag == "!!map" && inner.Kind == Mapping, tag == "!!seq" && inner.Kind == Sequence,
		tag == "!!"+typeTag(inner) && inner.Kind == Scalar:
	default:
		inner.tag = tag
	}
	return inner, nil
}

func typeTag(n *Node) string {
	return map[string]string{"NoneType": "null", "bool": "bool", "int": "int", "float": "float", "str": "str"}[value.TypeName(n.scalar)]
}

func (c *composer) sequence(out *Node, n *ast.SequenceNode, depth int) (*Node, error) {
	out.Kind = Sequence
	for _, item := range n.Values {
		child, err := c.node(item, depth+1)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, child)
	}
	return out, nil
}

func (c *composer) mapping(out *Node, values []*ast.MappingValueNode, depth int) (*Node, error) {
	out.Kind = Mapping
	seen := make(map[string]int, len(values))
	var merged []*Node
	for _, v := range values {
		if _, ok := v.Key.(*ast.MergeKeyNode); ok {
			from, err := c.mergeSources(v.Value, depth)
			if err != nil {
				return nil, err
			}
			merged = append(merged, from...)
			continue
		}
		field, err := c.field(v, depth)
		if err != nil {
			return nil, err
		}
		id := field.notText + ":" + field.Key
		if first, dup := seen[id]; dup {
			e := &Error{Message: fmt.Sprintf("found duplicate key %q, which stands in line %d already: rename or remove one of them", field.Key, first), Line: field.Line, Column: field.Column}
			if c.report == nil {
				return nil, e
			}
			c.report(e)
			continue
		}
		seen[id] = field.Line
		out.Fields = append(out.Fields, field)
	}
	return c.merge(out, seen, merged)
}

func (c *composer) field(v *ast.MappingValueNode, depth int) (Field, error) {
	var keyNode ast.Node = v.Key
	if k, ok := keyNode.(*ast.MappingKeyNode); ok {
		keyNode = k.Value
	}
	key, err := c.node(keyNode, depth+1)
	if err != nil {
		return Field{}, err
	}
	field := Field{Line: key.Line, Column: key.Column}
	switch text, ok := key.scalar.(string); {
	case ok && key.tag == "":
		field.Key = text
	case key.Kind != Scalar:
		field.notText, field.Key = map[Kind]string{Mapping: "mapping", Sequence: "sequence"}[key.Kind], fmt.Sprintf("in line %d", key.Line)
	case key.date != "":
		field.notText, field.Key = "date", key.date
	default:
		field.notText, field.Key = value.TypeName(key.scalar), value.Repr(key.scalar)
	}
	field.Value, err = c.node(v.Value, depth+1)
	if err == nil && field.Value.Line == 0 {
		field.Value.Line, field.Value.Column = field.Line, field.Column
	}
	return field, err
}

// mergeSources reads what stands behind a merge key: a mapping, or a sequence of mappings of which the first wins.
func (c *composer) mergeSources(n ast.Node, depth int) ([]*Node, error) {
	from, err := c.node(n, depth+1)
	if err != nil {
		return nil, err
	}
	sources := []*Node{from}
	if from.Kind == Sequence {
		sources = from.Items
	}
	for _, s := range sources {
		if s.Kind != Mapping {
			return nil, from.errorf("a merge key needs a mapping or a list of mappings")
		}
	}
	return sources, nil
}

func (c *composer) merge(out *Node, seen map[string]int, sources []*Node) (*Node, error) {
	for _, source := range sources {
		for _, f := range source.Fields {
			id := f.notText + ":" + f.Key
			if _, ok := seen[id]; ok {
				continue
			}
			seen[id] = f.Line
			out.Fields = append(out.Fields, f)
		}
	}
	return out, nil
}
