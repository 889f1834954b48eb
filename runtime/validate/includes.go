package validate

import (
	"io/fs"

	"github.com/nomad-promptflow/nomad-promptflow/api"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
)

// MissingInclude is the problem of an additional include that is not there. It shows only where a flow is packed: in its bundle,
// includes are files like others.
func MissingInclude(dir fs.FS, i flow.Include) api.Problem {
	r := report{folder: newFolder(dir)}
	r.err(flow.Class{api.UserError}, i.Place, nil, "Unable to find additional include "+i.Path+".", "Correct the path, which is relative to the flow's folder, or remove it.")
	return r.problems[0]
}
