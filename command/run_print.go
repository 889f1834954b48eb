package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

const (
	// maxCell is how much of a value a table shows.
	maxCell = 48
	// maxFailures is how many failed lines are told in words.
	maxFailures = 5
)

// print shows a result, but for the outputs that have been shown, and returns the exit code.
func (c *runCommand) print(result *api.RunResult, asJSON bool, shown map[string]bool, took time.Duration) int {
	failed := failures(result)
	if asJSON {
		if code := c.printJSON(result); code != exitOK {
			return code
		}
	} else {
		c.printRun(result, shown, took)
	}
	if len(failed) == 0 {
		return exitOK
	}
	for i, err := range failed {
		if i == maxFailures {
			c.note("… and %d more", len(failed)-i)
			break
		}
		c.fail(err)
	}
	return exitFailure
}

// failures are the errors of a result: of the whole, of its lines, of its aggregation.
func failures(result *api.RunResult) []error {
	var errs []error
	for _, line := range result.FlowRuns {
		if line.Error == nil {
			continue
		}
		var err error = line.Error
		if result.Outputs != nil && line.Index != nil {
			err = fmt.Errorf("line %d: %w", *line.Index, line.Error)
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return errs
	}
	// An aggregation's errors stay in its nodes: the lines have completed.
	for _, node := range result.NodeRuns {
		if node.Error != nil && node.Index == nil {
			errs = append(errs, fmt.Errorf("aggregation node %q: %w", node.Node, node.Error))
		}
	}
	switch {
	case len(errs) > 0:
	case result.Error != nil:
		errs = append(errs, result.Error)
	case result.Status != api.StatusCompleted:
		errs = append(errs, fmt.Errorf("run %s ended with status %s", result.RunID, result.Status))
	}
	return errs
}

func (c *runCommand) printRun(result *api.RunResult, shown map[string]bool, took time.Duration) {
	if result.Outputs != nil {
		printOutputs(c.stdout, result.Outputs)
	} else if object, err := members(result.Output); err == nil {
		for _, m := range object {
			if !shown[m.name] {
				printValue(c.stdout, m)
			}
		}
	} else {
		_, _ = fmt.Fprintln(c.stdout, text(result.Output)) // of one node
	}
	if metrics, err := members(result.Metrics); err == nil && len(metrics) > 0 {
		_, _ = fmt.Fprintln(c.stdout, "\nMetrics")
		for _, m := range metrics {
			_, _ = fmt.Fprintf(c.stdout, "  %s = %s\n", m.name, m.value)
		}
	}
	printNodes(c.stdout, result.NodeRuns)
	lines := ""
	if result.Outputs != nil {
		lines = fmt.Sprintf(", %d of %d lines completed", len(result.Outputs), len(result.FlowRuns))
	}
	where := ""
	if result.Runtime != "" {
		where = " on runtime " + result.Runtime
	}
	if result.Instance != "" {
		where += ", instance " + result.Instance[:min(8, len(result.Instance))]
	}
	_, _ = fmt.Fprintf(c.stdout, "\n%s: answer after %s (%s in the runtime)%s, run %s%s\n", result.Status, seconds(took.Seconds()), seconds(result.Duration), lines, result.RunID, where)
}

// member is one member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members reads an object in its order. Null is an empty object.
func members(object json.RawMessage) ([]member, error) {
	if len(object) == 0 || bytes.Equal(object, []byte("null")) {
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(object))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.Join(err, errors.New("not a JSON object"))
	}
	var out []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: fmt.Sprint(name)}
		if err := decoder.Decode(&m.value); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// text is a value for people: a string without its quotes.
func text(value json.RawMessage) string {
	var s string
	// Null decodes into a string too, as nothing.
	if bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

func printValue(w io.Writer, m member) {
	value := strings.TrimRight(text(m.value), "\n")
	if strings.Contains(value, "\n") {
		value = "\n  " + strings.ReplaceAll(value, "\n", "\n  ")
	}
	_, _ = fmt.Fprintf(w, "%s: %s\n", m.name, value)
}

// printOutputs shows a batch's outputs as a table, a row for each completed line.
func printOutputs(w io.Writer, outputs []json.RawMessage) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, output := range outputs {
		object, err := members(output)
		if err != nil {
			continue
		}
		var names, cells []string
		for _, m := range object {
			if m.name == "line_number" {
				names, cells = slices.Insert(names, 0, "LINE"), slices.Insert(cells, 0, string(m.value))
				continue
			}
			names, cells = append(names, strings.ToUpper(m.name)), append(cells, cell(text(m.value)))
		}
		if i == 0 {
			_, _ = fmt.Fprintln(table, strings.Join(names, "\t"))
		}
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	_ = table.Flush()
}

// cell is a text on one short line.
func cell(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if runes := []rune(s); len(runes) > maxCell {
		return string(runes[:maxCell-1]) + "…"
	}
	return s
}

// nodeTimes are the runs of one node over all lines.
type nodeTimes struct {
	name     string
	statuses map[string]int
	seconds  []float64
}

func printNodes(w io.Writer, runs []api.NodeRunInfo) {
	var nodes []*nodeTimes
	for _, run := range runs {
		i := slices.IndexFunc(nodes, func(n *nodeTimes) bool { return n.name == run.Node })
		if i < 0 {
			i = len(nodes)
			nodes = append(nodes, &nodeTimes{name: run.Node, statuses: map[string]int{}})
		}
		nodes[i].statuses[run.Status]++
		if took, ok := duration(run); ok && run.Status != api.StatusBypassed {
			nodes[i].seconds = append(nodes[i].seconds, took)
		}
	}
	if len(nodes) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "NODE\tSTATUS\tMEDIAN\tMAX")
	for _, n := range nodes {
		slices.Sort(n.seconds)
		median, longest := "-", "-"
		if len(n.seconds) > 0 {
			median, longest = seconds(n.seconds[len(n.seconds)/2]), seconds(n.seconds[len(n.seconds)-1])
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", n.name, n.status(), median, longest)
	}
	_ = table.Flush()
}

func (n *nodeTimes) status() string {
	var names []string
	for name := range n.statuses {
		names = append(names, name)
	}
	slices.Sort(names)
	total := 0
	for _, count := range n.statuses {
		total += count
	}
	if total == 1 {
		return names[0]
	}
	for i, name := range names {
		names[i] = strconv.Itoa(n.statuses[name]) + " " + name
	}
	return strings.Join(names, ", ")
}

// duration is how long a node ran, when its record says so.
func duration(run api.NodeRunInfo) (float64, bool) {
	var metrics struct {
		Duration *float64 `json:"duration"`
	}
	if json.Unmarshal(run.SystemMetrics, &metrics) == nil && metrics.Duration != nil {
		return *metrics.Duration, true
	}
	return 0, false
}

// seconds is a time for people, in a unit that leaves few digits.
func seconds(s float64) string {
	switch {
	case s < 0.0995:
		return fmt.Sprintf("%.1f ms", s*1000)
	case s < 0.9995:
		return fmt.Sprintf("%.0f ms", s*1000)
	default:
		return fmt.Sprintf("%.2f s", s)
	}
}
