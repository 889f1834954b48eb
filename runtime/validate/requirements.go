package validate

import (
	"path"
	"strings"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/flow"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// requirementsFile returns the file that the flow's environment names, and the place where it does.
func (c *checking) requirementsFile() (string, flow.Place) {
	environment := fields{c.draft.Document}.below("environment")
	name := textOf(environment.node.Get("python_requirements_txt"))
	if name == "" {
		return "", flow.Place{}
	}
	return path.Clean(name), environment.value(c.draft.File, "python_requirements_txt", flow.Place{})
}

// aboutRequirements asks which of the required packages Python has.
func (c *checking) aboutRequirements() []question {
	name, _ := c.requirementsFile()
	if name == "" || !c.folder.has(name) {
		return nil
	}
	lines := requirementLines(c.folder.text(name))
	if len(lines) == 0 {
		return nil
	}
	return []question{{worker.CheckJob{Kind: worker.CheckRequirements, Lines: lines}, func(r *worker.CheckResult) { c.python.requirements = r }}}
}

// requirementLines are the lines that name packages; options, and files that are included, are passed over.
func requirementLines(t *text) []worker.RequirementLine {
	var lines []worker.RequirementLine
	for i, line := range t.lines {
		entry, _, _ := strings.Cut(" "+string(line), " #")
		entry, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimSpace(entry), "\\"), " --")
		entry = strings.TrimSpace(entry)
		if entry == "" || strings.HasPrefix(entry, "#") || strings.HasPrefix(entry, "-") || strings.Contains(entry, "://") && !strings.Contains(entry, "@") {
			continue
		}
		lines = append(lines, worker.RequirementLine{Line: i + 1, Text: entry})
	}
	return lines
}

// requirements reports what of the flow's requirements this runtime does not meet.
func (c *checking) requirements() {
	name, at := c.requirementsFile()
	if name == "" {
		return
	}
	if !c.folder.has(name) {
		c.report.warn("RequirementsFileMissing", at, nil, "The requirements file "+name+" is not in the flow's folder.",
			didYouMean(name, c.folder.names(".txt"), quoted, "Add it, or correct the path; it is relative to that folder."))
		return
	}
	if c.python.requirements == nil {
		return
	}
	for _, f := range c.python.requirements.Findings {
		place := flow.Place{File: name, Line: f.Line}
		switch f.Kind {
		case "missing":
			c.report.warn("RequirementMissing", place, nil, "The package "+f.Name+" is not installed in this runtime.",
				"Build an environment with it, and let the runtime use that.")
		case "version":
			c.report.warn("RequirementVersion", place, nil, "This runtime has "+f.Name+" "+f.Installed+", and the flow asks for "+f.Wanted+".",
				"Build an environment with that version, or allow the one that is there.")
		case "invalid":
			c.report.warn("RequirementInvalid", place, nil, "The requirement cannot be read: "+f.Detail+".", "Write it as NAME==VERSION.")
		}
	}
}
