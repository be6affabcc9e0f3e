// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// rdmaModules maps the driver of a PCI function to the module that makes its
// RDMA device. A driver that makes it by itself maps to its own name.
var rdmaModules = map[string]string{
	"mlx5_core":  "mlx5_ib",
	"mlx4_core":  "mlx4_ib",
	"mana":       "mana_ib",
	"ice":        "irdma",
	"i40e":       "irdma",
	"idpf":       "irdma",
	"bnxt_en":    "bnxt_re",
	"ionic":      "ionic_rdma",
	"qede":       "qedr",
	"cxgb4":      "iw_cxgb4",
	"hns3":       "hns_roce_hw_v2",
	"efa":        "efa",
	"erdma":      "erdma",
	"ib_qib":     "ib_qib",
	"hfi1":       "hfi1",
	"vmw_pvrdma": "vmw_pvrdma",
}

// RDMAModule gives the module that makes the RDMA device of functions with
// this driver; "" for a driver that has none.
func RDMAModule(driver string) string { return rdmaModules[driver] }

// rdmaParts are the names under which drivers offer their RDMA half on the
// auxiliary bus: "mlx5_core.rdma.0", "mlx4_core.ib.1", "ice.roce.0",
// "i40e.iwarp.0".
var rdmaParts = []string{"rdma", "ib", "roce", "iwarp", "rdma-rep"}

// isRDMAPart reports whether an auxiliary device of driver is its RDMA half.
func isRDMAPart(driver, name string) bool {
	rest, ok := strings.CutPrefix(name, driver+".")
	if !ok {
		return false
	}
	part, _, ok := strings.Cut(rest, ".")
	if !ok {
		return false
	}
	for _, p := range rdmaParts {
		if part == p {
			return true
		}
	}
	return false
}

// findMissing lists the functions that could carry an RDMA device and do not.
// The auxiliary devices in the function's directory tell "the driver offers
// none" (firmware, devlink enable_rdma) from "the module is not there".
func (r *RDMA) findMissing(f *Facts) {
	h := f.host
	var ops []host.Op
	for _, fn := range f.PCI().Functions {
		if fn.Driver == nil || fn.VF() || rdmaModules[*fn.Driver] == "" || len(r.At(fn.BDF)) > 0 {
			continue
		}
		r.Missing = append(r.Missing, &RDMAHalf{Function: fn, Module: rdmaModules[*fn.Driver]})
		ops = append(ops, host.Op{Kind: host.ListDir, Path: PCIDevices + "/" + fn.BDF})
	}
	h.Prefetch(ops)
	for _, m := range r.Missing {
		names, err := h.List(PCIDevices + "/" + m.Function.BDF)
		if err != nil {
			m.Why = whyNot(h, err)
			continue
		}
		for _, n := range names {
			if !isRDMAPart(*m.Function.Driver, n) {
				continue
			}
			m.Offered = append(m.Offered, n)
			if _, err := h.Link(m.Function.Attr(n + "/driver")); err == nil {
				m.Bound = true
			}
		}
	}
}
