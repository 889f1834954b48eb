package validate

import (
	"slices"

	"github.com/nomad-promptflow/nomad-promptflow/runtime/run"
	"github.com/nomad-promptflow/nomad-promptflow/runtime/worker"
)

// aboutModules asks whether the modules can be imported that nodes ask for, beyond those that are always there.
func (c *checking) aboutModules() []question {
	before := c.memory.modules
	c.memory.modules = map[string]*worker.CheckResult{}
	var questions []question
	for _, u := range c.units {
		if !run.NeedsModule(u.Node) {
			continue
		}
		if r := before[u.Module]; r != nil {
			c.moduleTold(u, r)
			continue
		}
		questions = append(questions, question{worker.CheckJob{Kind: worker.CheckModule, Name: u.Name, Module: u.Module}, func(r *worker.CheckResult) { c.moduleTold(u, r) }})
	}
	return questions
}

// moduleTold reports a module that cannot be imported; one that can is not asked for again.
func (c *checking) moduleTold(u *unit, r *worker.CheckResult) {
	if r.Error == nil {
		if r.Crash == "" && r.Failure == "" {
			c.memory.modules[u.Module] = r
		}
		return
	}
	e := *r.Error
	known := run.OwnModules()
	mend := "Remove the key 'module', or build an environment with the package that has it."
	if slices.Contains([]string{"llm", "prompt"}, u.Type) {
		mend = didYouMean(u.Module, known, quoted, "Remove the key 'module': the connection says which tool it is.")
	}
	c.report.failure(u.fields.value(u.File, "module", u.Place).At(&e), mend, u)
}
