package fidelity

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/value"
)

// Discover finds the flows below a folder that is not ours, with inputs that their folders suggest: cases.yaml, data files beside the
// flow, the flow's defaults, and otherwise values made up by type. Both sides get the same, so any inputs will do.
func Discover(root string) ([]Flow, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	var flows []Flow
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && leftOut[entry.Name()]:
			return fs.SkipDir
		case !entry.IsDir():
			return nil
		}
		found, err := flowsIn(root, path)
		flows = append(flows, found...)
		return err
	})
	return flows, err
}

// leftOut are folders that hold no flows of their own.
var leftOut = map[string]bool{".git": true, ".promptflow": true, "__pycache__": true, "node_modules": true, ".venv": true, "venv": true}

// flowsIn returns the flow of a folder: its DAG or flex file, or each of its prompty files.
func flowsIn(root, dir string) ([]Flow, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	name, _ := filepath.Rel(root, dir)
	var prompty []Flow
	for _, e := range entries {
		switch strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".yaml"), ".yml") {
		case "flow.dag", "flow.flex":
			f := Flow{Name: filepath.ToSlash(name), Dir: dir}
			return []Flow{f}, f.suggest(e.Name())
		}
		if strings.HasSuffix(e.Name(), ".prompty") && !e.IsDir() {
			f := Flow{Name: filepath.ToSlash(filepath.Join(name, e.Name())), Dir: dir, File: e.Name()}
			if err := f.suggest(e.Name()); err != nil {
				return nil, err
			}
			prompty = append(prompty, f)
		}
	}
	return prompty, nil
}

// mostRows is how many rows of a data file are run.
const mostRows = 3

// suggest sets the flow's cases.
func (f *Flow) suggest(file string) error {
	if err := f.readCases(); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	definition := f.definition(file)
	inputs, _ := get(definition, "inputs").(*value.Dict)
	sample, _ := get(definition, "sample").(*value.Dict)
	rows := f.dataRows(inputs)
	switch {
	case len(rows) > 0:
	case sample != nil: // of a flex flow or a prompty file, which apply it by themselves
		rows = []*value.Dict{value.NewDict()}
	default:
		rows = []*value.Dict{madeUp(inputs)}
	}
	for _, row := range rows {
		f.Cases = append(f.Cases, Case{Inputs: row})
	}
	if len(rows) > 1 && aggregates(definition) {
		lines := make([]any, len(rows))
		for i, row := range rows {
			lines[i] = row
		}
		f.Cases = append(f.Cases, Case{Lines: lines})
	}
	return nil
}

// definition reads a flow's file as far as it can be read.
func (f *Flow) definition(file string) *value.Dict {
	text, err := os.ReadFile(filepath.Join(f.Dir, file))
	if err != nil {
		return nil
	}
	if strings.HasSuffix(file, ".prompty") {
		parts := strings.SplitN("\n"+string(text), "\n---", 3)
		if len(parts) < 3 {
			return nil
		}
		text = []byte(strings.TrimLeft(parts[1], "-"))
	}
	d, err := parseYAML(text)
	if err != nil {
		return nil // what is wrong with it is for the two sides to say
	}
	return d
}

func aggregates(definition *value.Dict) bool {
	for _, n := range dicts(definition, "nodes") {
		if get(n, "aggregation") == true || get(n, "reduce") == true {
			return true
		}
	}
	return definition.Has("entry")
}

// dataRows returns the first rows, of the data files in the folder, that have every input the flow needs.
func (f *Flow) dataRows(inputs *value.Dict) []*value.Dict {
	var files []string
	for _, pattern := range []string{"samples.json", "*inputs*.json*", "*data*.json*", "*.jsonl"} {
		found, _ := filepath.Glob(filepath.Join(f.Dir, pattern)) // the patterns are well formed
		files = append(files, found...)
	}
	for _, file := range files {
		var fitting []*value.Dict
		for _, row := range rowsOf(file) {
			if fits(row, inputs) && len(fitting) < mostRows {
				fitting = append(fitting, only(row, inputs))
			}
		}
		if len(fitting) > 0 {
			return fitting
		}
	}
	return nil
}

// rowsOf reads a JSON document (an object or a list of them) or JSON lines; what is neither has no rows.
func rowsOf(file string) []*value.Dict {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	v, err := value.Decode(text)
	if err != nil {
		return linesOf(text)
	}
	if d, ok := v.(*value.Dict); ok {
		return []*value.Dict{d}
	}
	return dicts(dict("rows", v), "rows")
}

func linesOf(text []byte) []*value.Dict {
	var rows []*value.Dict
	scanner := bufio.NewScanner(strings.NewReader(string(text)))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		if d, err := value.DecodeDict(scanner.Bytes()); err == nil {
			rows = append(rows, d)
		}
	}
	return rows
}

func fits(row, inputs *value.Dict) bool {
	for name, in := range inputs.All() {
		d, _ := in.(*value.Dict)
		if !row.Has(name) && get(d, "default") == nil {
			return false
		}
	}
	return inputs.Len() > 0 && row.Len() > 0
}

func only(row, inputs *value.Dict) *value.Dict {
	out := value.NewDict()
	for name := range inputs.All() {
		if v, ok := row.Get(name); ok {
			out.Set(name, v)
		}
	}
	return out
}

// madeUp gives every input without a default a value of its type.
func madeUp(inputs *value.Dict) *value.Dict {
	out := value.NewDict()
	for name, in := range inputs.All() {
		d, _ := in.(*value.Dict)
		if get(d, "default") != nil {
			continue
		}
		switch get(d, "type") {
		case "int":
			out.Set(name, int64(2))
		case "double":
			out.Set(name, 0.5)
		case "bool":
			out.Set(name, true)
		case "list":
			out.Set(name, []any{})
		case "object":
			out.Set(name, dict("key", "value"))
		case "image":
			out.Set(name, dict("data:image/png;base64", pixel))
		default:
			out.Set(name, "text")
		}
	}
	return out
}

// pixel is a PNG image of one pixel.
const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

// Connections adds to the connections those that flows of other people name and that can be told by their names.
func Connections(known *value.Dict, flows []Flow) *value.Dict {
	all := known.Clone()
	for _, f := range flows {
		entries, _ := os.ReadDir(f.Dir)
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(f.Dir, e.Name()))
			if err != nil || !strings.Contains(e.Name(), "flow.") && !strings.HasSuffix(e.Name(), ".prompty") {
				continue
			}
			for _, name := range named.FindAllString(string(text), -1) {
				if like := kindOf(name); !all.Has(name) && like != "" {
					v, _ := known.Get(like)
					all.Set(name, v)
				}
			}
		}
	}
	return all
}

// named is what may be the name of a connection.
var named = regexp.MustCompile(`\b\w*(?:conn|aoai)\w*\b`)

// kindOf returns the connection of connections.json that one of this name is like.
func kindOf(name string) string {
	lower := strings.ToLower(name)
	for _, kind := range []struct{ part, like string }{
		{"azure_open_ai", "azure_open_ai_connection"}, {"azureopenai", "azure_open_ai_connection"}, {"azure_openai", "azure_open_ai_connection"},
		{"aoai", "azure_open_ai_connection"}, {"open_ai", "open_ai_connection"}, {"openai", "open_ai_connection"}, {"serp", "serp_connection"},
		{"content_safety", "content_safety_connection"}, {"custom", "custom_connection"},
	} {
		if strings.Contains(lower, kind.part) {
			return kind.like
		}
	}
	return ""
}

// Verdict is a row of the table of other people's flows.
type Verdict struct {
	Flow        Flow
	Offline     string // why it does not run offline; empty when it does
	Differences []Difference
	// Unsteady is where prompt flow gave something else when it ran the flow a second time.
	Unsteady []Difference
}

// Steady returns the differences that are not where prompt flow differs from itself. A case whose status differs from run to run is
// left out whole.
func (v Verdict) Steady() []Difference {
	var steady []Difference
	for _, d := range v.Differences {
		if !slices.ContainsFunc(v.Unsteady, func(u Difference) bool {
			return u.Case == d.Case && (u.Path == d.Path || strings.HasSuffix(u.Path, "status") || u.Path == "broken")
		}) {
			steady = append(steady, d)
		}
	}
	return steady
}

// Judge compares a flow. One that fails alike on both sides because something is missing that this machine does not have is not
// runnable offline, and neither equal nor different; what it says may differ then, but not the classes of its errors.
func Judge(f Flow, theirs, ours Outcome) Verdict {
	v := Verdict{Flow: f, Differences: Compare(&f, theirs, ours)}
	why := offline(theirs)
	if theirs.Broken != "" && ours.Broken != "" {
		v.Differences = nil // both took too long
	}
	if why != "" && !slices.ContainsFunc(v.Differences, func(d Difference) bool { return !strings.HasSuffix(d.Path, ".message") }) {
		v.Offline, v.Differences = why, nil
	}
	return v
}

var missing = []struct {
	text *regexp.Regexp
	why  string
}{
	{regexp.MustCompile(`No module named '([\w.]+)'`), "needs the Python module %s"},
	{regexp.MustCompile(`cannot import name '(\w+)'`), "needs a module with %s"},
	{regexp.MustCompile(`Connection '?([\w-]+)'? (?:is )?not found`), "needs the connection %s"},
	{regexp.MustCompile(`Package tool '([\w.]+)' is not found`), "needs the package of the tool %s"},
	{regexp.MustCompile(`(?i)(name resolution|getaddrinfo|Max retries exceeded|Connection refused|APIConnectionError|Failed to resolve|URLError)`), "needs the network (%s)"},
	{regexp.MustCompile(`(C#|csharp)`), "is a flow for C# (%s)"},
}

// offline says what a flow lacked on this machine, empty when it lacked nothing.
func offline(theirs Outcome) string {
	text := theirs.Broken
	if text != "" && strings.Contains(text, "takes longer") {
		return text
	}
	var errs []string
	collectErrors(theirs.Cases, &errs)
	text += strings.Join(errs, "\n")
	for _, m := range missing {
		if found := m.text.FindStringSubmatch(text); found != nil {
			return fmt.Sprintf(m.why, found[1])
		}
	}
	return ""
}

// collectErrors gathers the messages of errors.
func collectErrors(v any, into *[]string) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			collectErrors(item, into)
		}
	case *value.Dict:
		if v.Has("codes") {
			*into = append(*into, value.Str(get(v, "message")))
		}
		for _, item := range v.All() {
			collectErrors(item, into)
		}
	}
}
