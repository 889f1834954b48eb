package server

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// swaggerTypes are the types of OpenAPI for those of flows; the others are strings.
var swaggerTypes = map[string]string{
	"int": "integer", "double": "number", "bool": "boolean", "string": "string", "list": "array", "object": "object", "image": "object",
}

func swaggerType(t string) string {
	if name, ok := swaggerTypes[t]; ok {
		return name
	}
	return "string"
}

// members makes an object of names and values.
func members(pairs ...any) *value.Dict {
	d := value.NewDictSize(len(pairs) / 2)
	for i := 0; i+1 < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return d
}

// describe is the OpenAPI document of prompt flow's serving app for a flow (core/_serving/swagger.py).
func (s *server) describe(served *lease) *value.Dict {
	f := served.Flow()
	name := flowName(served)
	info := members("title", "Promptflow["+name+"] API", "version", "1.0.0", "x-flow-name", name)
	input := inputSchema(f, info)
	output := s.outputSchema(f, info)
	content := members("schema", input, "example", example(served.Dir()))
	score := members(
		"summary", "run promptflow: "+name+" with an given input",
		"requestBody", members("description", "promptflow input data", "required", len(f.Inputs) > 0, "content", members("application/json", content)),
		"responses", responses(output),
	)
	return members(
		"openapi", "3.0.0", "info", info,
		"components", members("securitySchemes", members("bearerAuth", members("type", "http", "scheme", "bearer"))),
		"security", []any{members("bearerAuth", []any{})},
		"paths", members("/score", members("post", score), "/feedback", feedbackPath()),
	)
}

// flowName is what the serving app calls a flow: its folder, without an ending. A bundle's folder is called by a digest, so a flow that
// came in one has the name that its file says.
func flowName(served *lease) string {
	if isDigest(served.name) {
		if name := served.Flow().Name; name != "" {
			return name
		}
		return served.name[len("sha256:"):][:12]
	}
	base := filepath.Base(served.Dir())
	if ext := filepath.Ext(base); ext != base && ext != "." {
		return strings.TrimSuffix(base, ext)
	}
	return base
}

func inputSchema(f *flow.Flow, info *value.Dict) *value.Dict {
	schema := members("type", "object")
	if len(f.Inputs) == 0 {
		return schema
	}
	properties, required := value.NewDict(), []any{}
	for _, in := range f.Inputs {
		if in.IsChatInput {
			info.Set("x-chat-input", in.Name)
			info.Set("x-flow-type", "chat")
		}
		if in.MarksHistory != nil && *in.MarksHistory {
			info.Set("x-chat-history", in.Name)
		}
		field := fieldSchema(in.Type, in.Description)
		if value.Truth(in.Default) {
			field.Set("default", in.Default)
		}
		properties.Set(in.Name, field)
		required = append(required, in.Name) // also one with a default
	}
	schema.Set("properties", properties)
	schema.Set("required", required)
	return schema
}

func (s *server) outputSchema(f *flow.Flow, info *value.Dict) *value.Dict {
	schema := members("type", "object")
	if len(f.Outputs) == 0 {
		return schema
	}
	properties := value.NewDict()
	for _, out := range f.Outputs {
		if out.EvaluationOnly {
			continue
		}
		if out.IsChatOutput {
			info.Set("x-chat-output", out.Name)
		}
		if !s.hides(f, out.Name) {
			properties.Set(out.Name, fieldSchema(out.Type, out.Description))
		}
	}
	schema.Set("properties", properties)
	return schema
}

func fieldSchema(t, description string) *value.Dict {
	field := members("type", swaggerType(t))
	if description != "" {
		field.Set("description", description)
	}
	switch t {
	case "object":
		field.Set("additionalProperties", members())
	case "list":
		field.Set("items", members("type", "object", "additionalProperties", members()))
	}
	return field
}

func responses(output *value.Dict) *value.Dict {
	return members(
		"200", members("description", "successful operation", "content", members("application/json", members("schema", output))),
		"400", members("description", "Invalid input"),
		"default", members("description", "unexpected error"),
	)
}

func feedbackPath() *value.Dict {
	anything := members("type", "object", "additionalProperties", members())
	body := members("description", "promptflow feedback data", "required", true, "content", members("application/json", members("schema", anything)))
	flatten := members("name", "flatten", "in", "query", "description", "flatten the feedback data into traced data", "required", false, "schema", members("type", "boolean"))
	return members(
		"post", members("summary", "collect promptflow feedback", "requestBody", body, "responses", responses(anything)),
		"parameters", []any{flatten},
	)
}

// maxSamples bounds the file of samples, in bytes.
const maxSamples = 1 << 20

// example is the first of the flow's samples.
func example(dir string) any {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return members()
	}
	defer root.Close()
	info, err := root.Stat("samples.json")
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxSamples {
		return members()
	}
	data, err := root.ReadFile("samples.json")
	if err != nil {
		return members()
	}
	v, err := value.Decode(data)
	if samples, ok := v.([]any); err == nil && ok && len(samples) > 0 {
		return samples[0]
	}
	return members()
}
