package jobspecs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// variable is a variable block of a job file.
type variable struct {
	Name        string         `hcl:"name,label"`
	Type        hcl.Expression `hcl:"type"`
	Default     hcl.Expression `hcl:"default,optional"`
	Description string         `hcl:"description"`
	Validations []validation   `hcl:"validation,block"`
}

// validation is a rule for the values of a variable.
type validation struct {
	Condition hcl.Expression `hcl:"condition"`
	Message   string         `hcl:"error_message"`
}

// evaluate gives every variable its value: the one in given, else its default. All mistakes are reported at once.
func evaluate(variables []variable, given map[string]string) (map[string]cty.Value, error) {
	errs := unknown(variables, given)
	values := make(map[string]cty.Value, len(variables))
	for _, v := range variables {
		value, err := v.evaluate(given)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values[v.Name] = value
	}
	return values, errors.Join(errs...)
}

// unknown reports the names in given that no variable has.
func unknown(variables []variable, given map[string]string) []error {
	var names []string
	for _, v := range variables {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("set variable %q: the job has no such variable: use one of %s", name, strings.Join(names, ", ")))
		}
	}
	return errs
}

func (v *variable) evaluate(given map[string]string) (cty.Value, error) {
	wanted, diags := typeexpr.TypeConstraint(v.Type)
	if diags.HasErrors() {
		return cty.NilVal, fmt.Errorf("read type of variable %q: %w", v.Name, diags)
	}
	text, isGiven := given[v.Name]
	value, err := v.fallback()
	if isGiven {
		value, err = parseValue(text, wanted)
	}
	if err != nil {
		return cty.NilVal, fmt.Errorf("set variable %q: %w", v.Name, err)
	}
	value, err = convert.Convert(value, wanted)
	switch {
	case err != nil && isGiven:
		return cty.NilVal, fmt.Errorf("set variable %q to %q: %w", v.Name, text, err)
	case err != nil:
		return cty.NilVal, fmt.Errorf("read default of variable %q: %w", v.Name, err)
	case value.IsNull():
		return cty.NilVal, fmt.Errorf("set variable %q: it needs a value: %s", v.Name, v.Description)
	}
	return value, v.validate(value, text)
}

// fallback is the value of a variable that nobody sets. It is null for one without a default.
func (v *variable) fallback() (cty.Value, error) {
	value, diags := v.Default.Value(nil)
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return value, nil
}

// parseValue reads a value as it is written behind `-var name=`: text stands for itself, everything else is an expression.
func parseValue(text string, wanted cty.Type) (cty.Value, error) {
	if wanted == cty.String {
		return cty.StringVal(text), nil
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), "value", hcl.InitialPos)
	if diags.HasErrors() {
		return cty.NilVal, fmt.Errorf("parse %q as %s: %w", text, typeexpr.TypeString(wanted), diags)
	}
	value, diags := expr.Value(nil)
	if diags.HasErrors() {
		return cty.NilVal, fmt.Errorf("parse %q as %s: %w", text, typeexpr.TypeString(wanted), diags)
	}
	return value, nil
}

func (v *variable) validate(value cty.Value, text string) error {
	ctx := &hcl.EvalContext{
		Variables: map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{v.Name: value})},
		Functions: functions,
	}
	var errs []error
	for _, rule := range v.Validations {
		var holds bool
		if diags := gohcl.DecodeExpression(rule.Condition, ctx, &holds); diags.HasErrors() {
			errs = append(errs, fmt.Errorf("check variable %q: %w", v.Name, diags))
		} else if !holds {
			errs = append(errs, fmt.Errorf("set variable %q to %q: %s", v.Name, text, rule.Message))
		}
	}
	return errors.Join(errs...)
}
