package driver

import (
	"fmt"
	"io"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/plugin/hclspec"
)

// option is one option of a configuration: how an agent decodes it, and what the reference page says of it. Both come
// from here, so that neither can know an option that the other does not.
type option struct {
	name     string
	kind     string // as the page names it
	fallback string // as it is written in HCL; empty for none
	about    string
	spec     *hclspec.Spec
	members  []option // of a block
}

func textOption(name, about string) option {
	return option{name: name, kind: "string", about: about, spec: hclspec.Attr(name, "string", false)}
}

func textOr(name, fallback, about string) option {
	return option{
		name: name, kind: "string", fallback: fmt.Sprintf("%q", fallback), about: about, spec: hclspec.String(name, fallback),
	}
}

// numberOption has no default: what left it out is told from what set it to zero.
func numberOption(name, about string) option {
	return option{name: name, kind: "number", about: about, spec: hclspec.Attr(name, "number", false)}
}

func numberOr(name string, fallback int64, about string) option {
	return option{
		name: name, kind: "number", fallback: fmt.Sprint(fallback), about: about, spec: hclspec.Number(name, fallback),
	}
}

func boolOr(name string, fallback bool, about string) option {
	return option{
		name: name, kind: "bool", fallback: fmt.Sprint(fallback), about: about, spec: hclspec.Bool(name, fallback),
	}
}

func listOption(name, about string) option {
	return option{name: name, kind: "list of strings", about: about, spec: hclspec.Attr(name, "list(string)", false)}
}

// listOr is a list whose default holds when it is left out; an empty list is a value of its own.
func listOr(name string, fallback []string, about string) option {
	quoted := make([]string, 0, len(fallback))
	for _, value := range fallback {
		quoted = append(quoted, fmt.Sprintf("%q", value))
	}
	literal := "[" + strings.Join(quoted, ", ") + "]"
	return option{
		name: name, kind: "list of strings", fallback: literal, about: about,
		spec: hclspec.Default(hclspec.Attr(name, "list(string)", false), hclspec.Literal(literal)),
	}
}

// pairsOption is a block of free names, which may be written as an attribute too.
func pairsOption(name, about string) option {
	return option{name: name, kind: "block of strings", about: about, spec: hclspec.BlockAttrs(name, "string", false)}
}

func blockOption(name, about string, members ...option) option {
	return option{
		name: name, kind: "block", about: about, members: members, spec: hclspec.Block(name, false, schemaOf(members)),
	}
}

func blocksOption(name, about string, members ...option) option {
	return option{
		name: name, kind: "block, repeatable", about: about, members: members,
		spec: hclspec.BlockList(name, 0, 0, schemaOf(members)),
	}
}

func labelledOption(name, label, about string, members ...option) option {
	return option{
		name: name, kind: fmt.Sprintf("block %q, repeatable", label), about: about, members: members,
		spec: hclspec.BlockMap(name, []string{label}, schemaOf(members)),
	}
}

// schemaOf is what the agent decodes by.
func schemaOf(options []option) *hclspec.Spec {
	members := make(map[string]*hclspec.Spec, len(options))
	for _, o := range options {
		members[o.name] = o.spec
	}
	return hclspec.Object(members)
}

// WriteOptionsPage writes the reference page of all options as Markdown.
func WriteOptionsPage(w io.Writer) error {
	var page strings.Builder
	page.WriteString("# Options of the driver\n\n" +
		"<!-- Made from the schemas in driver/task_config.go and driver/plugin_config.go by: make options-page -->\n\n" +
		"## Task options\n\nThe body of `config { }` in a task with `driver = \"promptflow\"`.\n\n")
	writeOptions(&page, "", taskOptions())
	page.WriteString("\n## Plugin options\n\nThe body of `config { }` in the agent's `plugin \"nomad-promptflow\" { }`. " +
		"The agent reads it when it starts.\n\n")
	writeOptions(&page, "", pluginOptions())
	_, err := io.WriteString(w, page.String())
	return err
}

func writeOptions(page *strings.Builder, prefix string, options []option) {
	if prefix == "" {
		page.WriteString("| option | type | default | what it does |\n|---|---|---|---|\n")
	}
	for _, o := range options {
		fallback := ""
		if o.fallback != "" {
			fallback = "`" + o.fallback + "`"
		}
		about := strings.ReplaceAll(o.about, "|", `\|`)
		fmt.Fprintf(page, "| `%s%s` | %s | %s | %s |\n", prefix, o.name, o.kind, fallback, about)
		writeOptions(page, prefix+o.name+".", o.members)
	}
}
