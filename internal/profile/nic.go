// SPDX-License-Identifier: Apache-2.0

package profile

import (
	"cmp"
	"path"
	"reflect"
	"sync"

	"github.com/hostcheck/hostcheck/internal/facts"
)

// Selection is which interfaces the nics rules are about.
type Selection struct {
	Wants []NICWant       // interfaces that at least one rule matches, in the order of the facts
	Rules []RuleSelection // every rule, in order
	by    map[string]*NICWant
}

// NICWant is the effective rule of one interface: for each key the last rule
// that gives it, with that rule's provenance.
type NICWant struct {
	NIC   *facts.NIC
	PCI   *facts.PCIFunction // nil for a virtual interface, or where the bus is not known
	Rule  NICRule            // its ID, Match and Origin are those of the last rule that matched
	Rules []string           // IDs of the rules that matched, in order
}

// RuleSelection is what one rule matched. A rule that matched nothing is never
// a pass: its Min says whether that is a failure.
type RuleSelection struct {
	Rule      NICRule
	Names     []string // interfaces that it matched
	Undecided []string // interfaces about which a key of the selector could not be judged, as "eth0: its driver is not known: PATH: EIO"
}

// For gives what is wanted of an interface by name, or nil.
func (s *Selection) For(name string) *NICWant { return s.by[name] }

// SelectNICs matches the nics rules against the interfaces of a host. Every
// check of an interface asks for it, so the answer for one host is kept; it
// must not be changed.
func (p *Profile) SelectNICs(nics *facts.NICs, bus *facts.PCIBus) *Selection {
	k := &p.selection
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept == nil || k.nics != nics || k.bus != bus {
		k.nics, k.bus, k.kept = nics, bus, p.selectNICs(nics, bus)
	}
	return k.kept
}

// selection is the last answer of SelectNICs.
type selection struct {
	mu   sync.Mutex
	nics *facts.NICs
	bus  *facts.PCIBus
	kept *Selection
}

func (p *Profile) selectNICs(nics *facts.NICs, bus *facts.PCIBus) *Selection {
	s := &Selection{by: map[string]*NICWant{}}
	wants := map[*facts.NIC]*NICWant{}
	for i := range p.NICs {
		r := RuleSelection{Rule: p.NICs[i]}
		for _, n := range nics.List {
			var fn *facts.PCIFunction
			if n.Physical() && bus != nil {
				fn = bus.At(*n.BDF)
			}
			switch v := r.Rule.Match.judge(n, fn); {
			case v.ok:
				w := wants[n]
				if w == nil {
					w = &NICWant{NIC: n, PCI: fn}
					wants[n] = w
				}
				w.add(&r.Rule)
				r.Names = append(r.Names, n.Name)
			case v.unknown:
				r.Undecided = append(r.Undecided, n.Name+": "+v.why)
			}
		}
		s.Rules = append(s.Rules, r)
	}
	for _, n := range nics.List {
		if w := wants[n]; w != nil {
			s.Wants = append(s.Wants, *w)
		}
	}
	for i := range s.Wants {
		s.by[s.Wants[i].NIC.Name] = &s.Wants[i]
	}
	return s
}

// NICRulesFor gives the effective rule for one interface and the IDs of the
// rules that matched it. fn is its PCI function, nil when it has none.
func (p *Profile) NICRulesFor(n *facts.NIC, fn *facts.PCIFunction) NICWant {
	w := NICWant{NIC: n, PCI: fn}
	for i := range p.NICs {
		if p.NICs[i].Match.judge(n, fn).ok {
			w.add(&p.NICs[i])
		}
	}
	return w
}

// add lays a rule over what earlier rules gave.
func (w *NICWant) add(r *NICRule) {
	w.Rules = append(w.Rules, r.ID)
	w.Rule.ID, w.Rule.Match, w.Rule.Origin = r.ID, r.Match, r.Origin
	to, from := reflect.ValueOf(&w.Rule).Elem(), reflect.ValueOf(r).Elem()
	for _, f := range fields(from.Type()) {
		if f.key == "min" {
			continue // about the rule, not about one interface
		}
		if v, ok := from.FieldByIndex(f.index).Addr().Interface().(value); ok && v.isSet() {
			to.FieldByIndex(f.index).Set(from.FieldByIndex(f.index))
		}
	}
}

// ARPHRD_* of include/uapi/linux/if_arp.h.
var linkTypes = map[int]string{1: "ethernet", 32: "infiniband"}

// judge says whether the selector matches. What is not known makes the answer
// unknown, unless another key says no.
func (m NICMatch) judge(n *facts.NIC, fn *facts.PCIFunction) verdict {
	vs := []verdict{m.kind(n)}
	if m.Name != "" {
		vs = append(vs, globs("its name", []string{m.Name}, &n.Name, ""))
	}
	if m.BDF != "" {
		vs = append(vs, globs("its PCI address", []string{m.BDF}, n.BDF, n.Unknown["bdf"]))
	}
	if m.Driver != "" {
		vs = append(vs, globs("its driver", []string{m.Driver}, n.Driver, n.Unknown["driver"]))
	}
	if len(m.PCI) > 0 {
		why := n.Unknown["bdf"]
		if fn != nil {
			why = cmp.Or(fn.Unknown["vendor"], fn.Unknown["device"])
		}
		vs = append(vs, globs("its PCI id", m.PCI, pciIDOf(n, fn), why))
	}
	if m.Link != "" {
		var link *string
		if n.Type != nil {
			l := linkTypes[*n.Type]
			link = &l
		}
		vs = append(vs, globs("its link layer", []string{m.Link}, link, n.Unknown["type"]))
	}
	return all(vs)
}

func (m NICMatch) kind(n *facts.NIC) verdict {
	kind := cmp.Or(m.Kind, "pf")
	switch {
	case kind == "any":
		return verdict{ok: true}
	case n.BDF == nil:
		return notKnown("whether it is a device", n.Unknown["bdf"])
	}
	return verdict{ok: n.Physical() && !n.Representor && n.VF == (kind == "vf")}
}

// pciIDOf gives "vendor:device", "" for an interface that is no PCI function,
// nil when it is not known.
func pciIDOf(n *facts.NIC, fn *facts.PCIFunction) *string {
	id := ""
	switch {
	case n.BDF == nil:
		return nil
	case *n.BDF == "":
		return &id
	case fn == nil || fn.Vendor == nil || fn.Device == nil:
		return nil
	}
	id = *fn.Vendor + ":" + *fn.Device
	return &id
}

// notKnown is the verdict on what is not known; why may be empty.
func notKnown(what, why string) verdict {
	what += " is not known"
	if why != "" {
		what += ": " + why
	}
	return verdict{unknown: true, why: what}
}

// globs judges s by patterns; why says why s is nil.
func globs(what string, patterns []string, s *string, why string) verdict {
	if s == nil {
		return notKnown(what, why)
	}
	for _, g := range patterns {
		if ok, _ := path.Match(g, *s); ok {
			return verdict{ok: true}
		}
	}
	return verdict{}
}
