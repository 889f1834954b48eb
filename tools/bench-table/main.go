// Command bench-table prints the figures that the benchmarks wrote, as one Markdown table.
//
//	bench-table .build/bench/*.json
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// figure is one row: see "Figures to reach" in the design. Goal is a ratio where there is something to compare with and
// no goal unit, else a number of the row's own unit; 0 is no goal.
type figure struct {
	Row     string  `json:"row"`
	Unit    string  `json:"unit"`
	Ours    float64 `json:"ours"`
	Against string  `json:"against"`
	Theirs  float64 `json:"theirs"`
	Ratio   float64 `json:"ratio"`
	Goal    float64 `json:"goal"`
	Met     bool    `json:"met"`
	// GoalUnit is set where the goal is none of the comparison.
	GoalUnit string `json:"goal_unit"`
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: bench-table FILE…")
		os.Exit(2)
	}
	if err := printTable(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-table:", err)
		os.Exit(1)
	}
}

func printTable(to io.Writer, files []string) error {
	table := tabwriter.NewWriter(to, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "| figure\t| ours\t| against\t| theirs\t| ratio\t| goal\t| met\t|")
	fmt.Fprintln(table, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var figures []figure
		if err := json.Unmarshal(content, &figures); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		for _, f := range figures {
			fmt.Fprintln(table, f.line())
		}
	}
	return table.Flush()
}

func (f figure) line() string {
	theirs, ratio, goal, met := "", "", "", ""
	if f.Against != "" {
		theirs, ratio = fmt.Sprintf("%.4g %s", f.Theirs, f.Unit), fmt.Sprintf("%.2f", f.Ratio)
	}
	if f.Goal != 0 {
		goal, met = fmt.Sprintf("%.4g %s", f.Goal, f.Unit), "no"
		if f.Against != "" && f.GoalUnit == "" {
			goal = fmt.Sprintf("%.4g×", f.Goal)
		}
		if f.Met {
			met = "yes"
		}
	}
	return fmt.Sprintf("| %s\t| %.4g %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|", f.Row, f.Ours, f.Unit, f.Against, theirs, ratio, goal, met)
}
