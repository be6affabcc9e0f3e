// SPDX-License-Identifier: Apache-2.0

package fleet

// mark is how far the dictionaries were filled before a report was read.
type mark struct{ texts, values, attrs, cases, cells, checks, foreign, used, merged int }

func (m *Merger) mark() mark {
	m.added = m.added[:0]
	return mark{len(m.texts), len(m.values), len(m.attrs), len(m.cases), len(m.cells), len(m.checks), m.foreign, m.used, m.merged}
}

// undo forgets what came with a report that turned out to be of no use: nothing
// of it may take room that other reports need.
func (m *Merger) undo(k mark) {
	for _, r := range m.added {
		m.known.forget(r)
	}
	for i := range m.cells[k.cells:] {
		delete(m.cellIDs, string(m.cellKey(&m.cells[k.cells+i])))
	}
	for _, c := range m.cases[k.cases:] {
		delete(m.caseIDs, c)
	}
	for _, v := range m.values[k.values:] {
		delete(m.valueIDs, v)
		if a := &m.attrs[v.attr]; a.line == m.summary.Lines {
			a.values--
			a.line = 0
		}
	}
	for i := range m.attrs[k.attrs:] {
		delete(m.attrIDs, m.attrs[k.attrs+i].attrKey)
	}
	for i := range m.checks[k.checks:] {
		delete(m.checkIDs, m.checks[k.checks+i].id)
	}
	for _, s := range m.texts[k.texts:] {
		delete(m.strings, s)
	}
	m.cells, m.cases, m.values, m.attrs = m.cells[:k.cells], m.cases[:k.cases], m.values[:k.values], m.attrs[:k.attrs]
	m.checks, m.texts = m.checks[:k.checks], m.texts[:k.texts]
	m.foreign, m.used, m.merged = k.foreign, k.used, k.merged
}
