package command

import (
	"net/url"
	"path/filepath"

	"github.com/nomad-promptflow/nomad-promptflow/api"
)

// The parts of a SARIF 2.1.0 log that are used here
// (https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/sarif-v2.1.0-os.html).
type (
	sarif struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool     `json:"tool"`
		Results     []sarifResult `json:"results"`
		ColumnKind  string        `json:"columnKind"`
		Invocations []sarifCall   `json:"invocations"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string       `json:"id"`
		ShortDescription sarifMessage `json:"shortDescription"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifMessage    `json:"message"`
		Locations []sarifLocation `json:"locations,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine   int           `json:"startLine"`
		StartColumn int           `json:"startColumn,omitempty"`
		Snippet     *sarifMessage `json:"snippet,omitempty"`
	}
	sarifLogical struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	}
	sarifCall struct {
		Successful    bool        `json:"executionSuccessful"`
		Notifications []sarifNote `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNote struct {
		Level   string       `json:"level"`
		Message sarifMessage `json:"message"`
	}
)

// sarifLog turns a validation into a SARIF log for pipelines: a rule for each kind of problem, a result for each problem.
func sarifLog(v *api.Validation, shown func(string) string) sarif {
	run := sarifRun{
		Tool:       sarifTool{sarifDriver{Name: Name, Version: Version, Rules: []sarifRule{}}},
		Results:    []sarifResult{},
		ColumnKind: "unicodeCodePoints",
	}
	rules := map[string]int{}
	for _, p := range v.Problems {
		index, ok := rules[p.Code]
		if !ok {
			index = len(rules)
			rules[p.Code] = index
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{p.Code, sarifMessage{p.Code}})
		}
		if p.File != "" {
			p.File = filepath.ToSlash(shown(p.File))
		}
		run.Results = append(run.Results, sarifOf(p, index))
	}
	call := sarifCall{Successful: true}
	for _, what := range v.Unchecked {
		call.Notifications = append(call.Notifications, sarifNote{"note", sarifMessage{"not checked: " + what}})
	}
	run.Invocations = []sarifCall{call}
	return sarif{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

func sarifOf(p api.Problem, rule int) sarifResult {
	result := sarifResult{RuleID: p.Code, RuleIndex: rule, Level: p.Severity, Message: sarifMessage{p.Message + " " + p.Mend}}
	if p.File == "" {
		return result
	}
	location := sarifLocation{Physical: sarifPhysical{Artifact: sarifArtifact{(&url.URL{Path: p.File}).EscapedPath()}}}
	if p.Line > 0 {
		location.Physical.Region = &sarifRegion{StartLine: p.Line, StartColumn: p.Column}
		if p.Text != "" {
			location.Physical.Region.Snippet = &sarifMessage{p.Text}
		}
	}
	if p.Node != "" {
		location.Logical = []sarifLogical{{p.Node, "member"}}
	}
	result.Locations = []sarifLocation{location}
	return result
}
