package agent

import (
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// variables makes of dotted names what a configuration refers to: ${attr.kernel.name}, ${NOMAD_TASK_DIR}, and as an agent offers
// them too ${env["NOMAD_TASK_DIR"]} and ${node.attr.kernel.name}.
func variables(vars map[string]string) map[string]cty.Value {
	tree := map[string]any{}
	env := map[string]cty.Value{}
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		nest(tree, strings.Split(name, "."), vars[name])
		if !ofNode(name) {
			env[name] = cty.StringVal(vars[name])
		}
	}
	offerUnderNode(tree)
	out := make(map[string]cty.Value, len(tree)+1)
	for name, value := range tree {
		out[name] = nested(value)
	}
	out["env"] = cty.MapValEmpty(cty.String)
	if len(env) > 0 {
		out["env"] = cty.MapVal(env)
	}
	return out
}

func ofNode(name string) bool {
	root, _, below := strings.Cut(name, ".")
	return below && (root == "attr" || root == "meta" || root == "node")
}

// nest puts a value at its path. Where one name is a value and the root of others (attr.driver.x and attr.driver.x.version) the
// others win, as with an agent; a name with an empty part is nobody's.
func nest(tree map[string]any, path []string, value string) {
	if slices.Contains(path, "") {
		return
	}
	for _, name := range path[:len(path)-1] {
		below, ok := tree[name].(map[string]any)
		if !ok {
			below = map[string]any{}
			tree[name] = below
		}
		tree = below
	}
	last := path[len(path)-1]
	if _, taken := tree[last].(map[string]any); !taken {
		tree[last] = value
	}
}

func offerUnderNode(tree map[string]any) {
	node, ok := tree["node"].(map[string]any)
	if !ok {
		node = map[string]any{}
		tree["node"] = node
	}
	for _, root := range []string{"attr", "meta"} {
		if below, ok := tree[root].(map[string]any); ok {
			node[root] = below
		}
	}
}

func nested(value any) cty.Value {
	if text, ok := value.(string); ok {
		return cty.StringVal(text)
	}
	members := map[string]cty.Value{}
	for name, member := range value.(map[string]any) {
		members[name] = nested(member)
	}
	return cty.ObjectVal(members)
}
