package validate

import (
	"errors"
	"strconv"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow/document"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

type apiLocation = api.Location

func asError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return api.AsError(err)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func nodeNames(f *flow.Flow) []string {
	names := make([]string, len(f.Nodes))
	for i, n := range f.Nodes {
		names[i] = n.Name
	}
	return names
}

// textOf returns a field's value as a text; empty for an absent one and null.
func textOf(f *document.Field) string {
	if f == nil {
		return ""
	}
	v, err := f.Value.Value()
	if err != nil || v == nil {
		return ""
	}
	return value.Str(v)
}

// truthOf is Python's truth of a field's value.
func truthOf(f *document.Field) bool {
	if f == nil {
		return false
	}
	v, err := f.Value.Value()
	return err == nil && value.Truth(v)
}
