package jobspecs

import (
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are those of Nomad's job language that our files use, under Nomad's names for them.
var functions = map[string]function.Function{
	"contains":      stdlib.ContainsFunc,
	"floor":         stdlib.FloorFunc,
	"length":        stdlib.LengthFunc,
	"merge":         stdlib.MergeFunc,
	"regex_replace": stdlib.RegexReplaceFunc,
	"strlen":        stdlib.StrlenFunc,
}
