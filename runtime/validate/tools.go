package validate

import (
	"bytes"
	"encoding/json"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// metadata is the flow.tools.json of a flow in the making: prompt flow's own generator makes the parts.
type metadata struct {
	questions []question
	sources   []string // in the order in which prompt flow meets them
	code      map[string]json.RawMessage
	packages  json.RawMessage
}

// metadata asks for the metadata of every source that a node or a variant names, and of every package tool.
func (c *checking) metadata() *metadata {
	m := &metadata{code: map[string]json.RawMessage{}, packages: json.RawMessage("{}")}
	kinds := map[string]string{}
	keys := []string{}
	for _, u := range c.inMetadataOrder() {
		if u.Source == nil {
			continue
		}
		if u.Source.Tool != "" {
			keys = append(keys, u.Source.Tool)
		}
		// Without the key 'type' prompt flow's generator passes a source over.
		if !u.fields.below("source").has("type") || u.Source.Type == "package" || u.Source.Path == "" || u.Type == "" {
			continue
		}
		kind := u.Type
		if kind == "custom_llm" { // its source is a prompt
			kind = flow.Prompt
		}
		if _, ok := kinds[u.Source.Path]; !ok {
			m.sources = append(m.sources, u.Source.Path)
		}
		kinds[u.Source.Path] = kind
	}
	for _, source := range m.sources {
		m.ask(c, source, kinds[source])
	}
	if len(keys) > 0 {
		m.questions = append(m.questions, question{worker.CheckJob{Kind: worker.CheckPackages, Keys: keys}, func(r *worker.CheckResult) {
			if r.Meta != nil {
				m.packages = r.Meta
			}
		}})
	}
	return m
}

func (m *metadata) ask(c *checking, source, kind string) {
	m.questions = append(m.questions, question{worker.CheckJob{Kind: worker.CheckMeta, Source: source, Type: kind}, func(r *worker.CheckResult) {
		switch {
		case r.Meta != nil:
			m.code[source] = r.Meta
		case r.Error != nil:
			c.metaFailed(source, r.Error)
		default:
			c.metaFailed(source, api.NewError([]string{api.UserError, "GenerateMetaUserError"}, flow.TargetExecutor,
				"Generate tool meta failed for '%s': %s%s.", source, r.Crash, r.Failure))
		}
	}})
}

// metaFailed notes what keeps prompt flow from telling a tool's interface.
func (c *checking) metaFailed(source string, e *api.Error) {
	e.Message = c.shorten(e.Message)
	c.metaErrors = append(c.metaErrors, metaError{source, e})
}

// metaError is a metadata error of a source.
type metaError struct {
	source string
	err    *api.Error
}

// reportMeta reports metadata errors of nodes with which nothing else is wrong.
func (c *checking) reportMeta() {
	for _, e := range c.metaErrors {
		for _, u := range c.units {
			if u.Source != nil && u.Source.Path == e.source && !c.report.hasError(u) {
				c.report.failure(c.script(u, 1).At(e.err), "", u)
				break
			}
		}
	}
}

func (c *checking) toolErrors() map[string]*api.Error {
	var all map[string]*api.Error
	for _, e := range c.metaErrors {
		if all == nil {
			all = map[string]*api.Error{}
		}
		all[e.source] = e.err
	}
	return all
}

// inMetadataOrder returns each node followed by its variants.
func (c *checking) inMetadataOrder() []*unit {
	var ordered []*unit
	for _, item := range c.nodeFields() {
		name := textOf(item.node.Get("name"))
		for _, u := range c.units {
			if u.fields.node == item.node {
				ordered = append(ordered, u)
			}
		}
		if !truthOf(item.node.Get("use_variants")) {
			continue
		}
		for _, v := range c.draft.Variants {
			for _, u := range c.units {
				if u.Place == v.Node.Place && u.Name == name {
					ordered = append(ordered, u)
				}
			}
		}
	}
	return ordered
}

// finishTools puts the metadata together.
func (c *checking) finishTools(m *metadata) error {
	if m == nil {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(`{"package":`)
	b.Write(m.packages)
	b.WriteString(`,"code":{`)
	first := true
	for _, source := range m.sources {
		meta, ok := m.code[source]
		if !ok {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.Write(value.Encode(source))
		b.WriteByte(':')
		b.Write(meta)
	}
	b.WriteString("}}")
	c.tools = b.Bytes()
	return nil
}
