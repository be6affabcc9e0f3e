// SPDX-License-Identifier: Apache-2.0

package checks

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/check"
	"github.com/hostcheck/hostcheck/internal/facts"
	"github.com/hostcheck/hostcheck/internal/plan"
	"github.com/hostcheck/hostcheck/internal/profile"
)

// paramRules is all rules of one kernel parameter.
type paramRules struct {
	name  string
	rules []*profile.SysctlRule
}

// sysctlOwner tells which check judges a parameter.
func sysctlOwner(name string) string {
	switch name {
	case "net.core.rmem_max", "net.core.wmem_max", "net.core.rmem_default", "net.core.wmem_default":
		return sysctlSocketBuffersID
	case "net.core.netdev_max_backlog":
		return sysctlBacklogID
	case "net.core.somaxconn":
		return sysctlSomaxconnID
	case congestionKey:
		return sysctlCongestionID
	}
	if strings.HasPrefix(name, "net.ipv4.tcp_") {
		return sysctlTCPDefaultsID
	}
	return sysctlKeysID
}

// sysctlRules gives the rules that a check judges, in the profile's order; ""
// is all of them.
func sysctlRules(r *check.Run, id string) []paramRules {
	var out []paramRules
	at := map[string]int{}
	for i := range r.Profile.Sysctl.Keys {
		rule := &r.Profile.Sysctl.Keys[i]
		name := facts.SysctlName(facts.SysctlPath(rule.Key))
		if id != "" && sysctlOwner(name) != id {
			continue
		}
		k, ok := at[name]
		if !ok {
			k = len(out)
			at[name] = k
			out = append(out, paramRules{name: name})
		}
		out[k].rules = append(out[k].rules, rule)
	}
	return out
}

func prefetchRules(r *check.Run, list []paramRules) {
	var names []string
	for _, p := range list {
		names = append(names, p.name)
	}
	r.Facts.Sysctl().Prefetch(names)
}

// ruleNumber is the number that a rule's limits are about.
func ruleNumber(rule *profile.SysctlRule, value string) (n int64, at int, words []string, err error) {
	words = strings.Fields(value)
	if rule.Field.Set {
		at = rule.Field.V - 1
	}
	if at >= len(words) {
		return 0, at, words, fmt.Errorf("%q has no number %d", value, at+1)
	}
	n, err = strconv.ParseInt(words[at], 10, 64)
	if err != nil {
		err = fmt.Errorf("%q is not a number", words[at])
	}
	return n, at, words, err
}

// ruleHolds reports whether one rule holds for a value.
func ruleHolds(rule *profile.SysctlRule, value string) (bool, error) {
	if rule.OneOf.Set {
		return slices.ContainsFunc(rule.OneOf.V, func(s string) bool { return facts.SysctlDecimal(s) == value }), nil
	}
	n, _, _, err := ruleNumber(rule, value)
	if err != nil {
		return false, err
	}
	return (!rule.Min.Set || n >= int64(rule.Min.V)) && (!rule.Max.Set || n <= int64(rule.Max.V)), nil
}

// broken gives the first rule that does not hold, one that is no mere advice
// before the others; nil when all hold.
func (p *paramRules) broken(value string) (*profile.SysctlRule, error) {
	var first *profile.SysctlRule
	for _, rule := range p.rules {
		ok, err := ruleHolds(rule, value)
		if err != nil {
			return nil, err
		}
		if !ok && (first == nil || first.Advice && !rule.Advice) {
			first = rule
		}
	}
	return first, nil
}

// fine reports whether all rules hold for a value.
func (p *paramRules) fine(value string) bool {
	rule, err := p.broken(value)
	return rule == nil && err == nil
}

// want says in words what the rules ask for.
func (p *paramRules) want() string {
	var all []string
	for _, rule := range p.rules {
		of := ""
		if rule.Field.Set {
			of = fmt.Sprintf("number %d ", rule.Field.V)
		}
		if rule.Min.Set {
			all = append(all, fmt.Sprintf("%sat least %d", of, rule.Min.V))
		}
		if rule.Max.Set {
			all = append(all, fmt.Sprintf("%sat most %d", of, rule.Max.V))
		}
		if rule.OneOf.Set {
			all = append(all, strings.Join(rule.OneOf.V, " or "))
		}
	}
	return strings.Join(all, ", ")
}

// target is the value that a fix sets, the same whichever check asks: what the
// files say where that is right, else what runs where that is, else the
// nearest value that the rules allow. ok is false where there is none.
func (p *paramRules) target(s *facts.Sysctl, k *facts.SysctlKey) (value string, ok bool) {
	if a := s.AtBoot(k); a != nil && p.fine(a.Value) {
		return a.Value, true
	}
	if k.Running == nil {
		return "", false
	}
	value = *k.Running
	for _, rule := range p.rules {
		if ok, err := ruleHolds(rule, value); ok || err != nil {
			continue
		}
		if rule.OneOf.Set {
			value = facts.SysctlDecimal(rule.OneOf.V[0])
			continue
		}
		n, at, words, err := ruleNumber(rule, value)
		if err != nil {
			return "", false
		}
		if n = max(n, int64(rule.Min.V)); !rule.Min.Set {
			n = int64(rule.Max.V)
		}
		words[at] = strconv.FormatInt(n, 10)
		value = strings.Join(words, " ")
	}
	return value, p.fine(value)
}

// ruleStatus is how bad a broken rule is.
func ruleStatus(rule *profile.SysctlRule) check.Status {
	if rule.Advice {
		return check.Warn
	}
	return atMostWarn(check.Fail, ruleOrigin(rule))
}

// ruleOrigin is the provenance of the value of a rule.
func ruleOrigin(rule *profile.SysctlRule) profile.Origin {
	for _, o := range []struct {
		set bool
		o   profile.Origin
	}{{rule.OneOf.Set, rule.OneOf.Origin}, {rule.Min.Set, rule.Min.Origin}, {rule.Max.Set, rule.Max.Origin}} {
		if o.set {
			if o.o.Why == "" {
				o.o.Why = rule.Why
			}
			return o.o
		}
	}
	return rule.Origin
}

// sysctlWish asks for a parameter's value; an assumed intent asks for nothing.
func sysctlWish(o profile.Origin, name, got, want, why string) []plan.Wish {
	if o.Assumed {
		return nil
	}
	return []plan.Wish{{Setting: plan.Setting{Kind: "sysctl", Name: name}, Got: got, Want: want, Tier: plan.Safe, Why: why}}
}

// setByHand is how a person sets a parameter for good.
func setByHand(s *facts.Sysctl, k *facts.SysctlKey, value string) string {
	after := "write it to a file in /etc/sysctl.d"
	if a := s.AtBoot(k); a != nil && a.Value != value {
		after = fmt.Sprintf("change %s, or write it to a file in /etc/sysctl.d that sorts after that", a.At())
	}
	return fmt.Sprintf("sysctl -w '%s=%s' sets it now; for good, %s", k.Name, value, after)
}

// sysctlTruth tells the three truths of a parameter.
func sysctlTruth(s *facts.Sysctl, k *facts.SysctlKey) *check.Truth {
	t := &check.Truth{}
	if k.Running != nil {
		t.Live = *k.Running
	}
	if a := s.AtBoot(k); a != nil {
		t.Configured, t.NextBoot = a.Value, a.Value
	}
	return t
}

// judgeSysctl judges what runs. It is a verdict but for what some checks add.
func judgeSysctl(r *check.Run, p *paramRules) check.Finding {
	s := r.Facts.Sysctl()
	k := s.Key(p.name)
	o := ruleOrigin(p.rules[0])
	f := check.Finding{Subject: p.name, Want: p.want(), Source: o.String()}
	if k.Running == nil {
		f.Status, f.Why = check.Unknown, k.Unknown["running"]
		if k.Absent {
			f.Why = k.Path() + ": this kernel, or this network namespace, has no such parameter"
		}
		return f
	}
	f.Got = *k.Running
	f.Evidence = []check.Evidence{{Source: k.Path(), Value: f.Got}}
	rule, err := p.broken(f.Got)
	switch {
	case err != nil:
		f.Status, f.Why = check.Unknown, k.Path()+": "+err.Error()
		return f
	case rule == nil:
		f.Status = check.Pass
		return f
	}
	o = ruleOrigin(rule)
	f.Status, f.Why, f.Source, f.Truth = ruleStatus(rule), o.Why, o.String(), sysctlTruth(s, &k)
	if f.Why == "" {
		f.Why = "the profile wants " + p.want()
	}
	if a := s.AtBoot(&k); a != nil {
		f.Evidence = append(f.Evidence, check.Evidence{Source: a.At(), Value: a.Value})
	}
	value, ok := p.target(s, &k)
	switch {
	case rule.Max.Set && !rule.Min.Set && !rule.OneOf.Set:
		f.Next = "set it back to the kernel's default and remove the line that raises it"
		if a := s.AtBoot(&k); a != nil {
			f.Next = fmt.Sprintf("remove %s from %s and set the kernel's default again", p.name, a.At())
		}
	case ok:
		f.Next = setByHand(s, &k, value)
		f.Fix = sysctlWish(o, p.name, f.Got, value, p.name+" must be "+p.want())
	default:
		f.Next = "change the profile: no value fits all of its rules"
	}
	return f
}
