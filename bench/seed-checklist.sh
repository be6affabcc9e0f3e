#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What people do by hand before they trust an RDMA host, as one script: the
# IOMMU's boot messages, hugepages, driver modules, RDMA links, NICs and VFs,
# DCQCN and the speed of every NIC. "make bench" times hostcheck beside it.
# It prints and does not judge; "(nothing)" is for the reader to interpret.

missing=
for tool in dmesg grep head lsmod rdma lspci cat ethtool; do
	command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
if [ -n "$missing" ]; then
	echo "seed-checklist: cannot run, these tools are not installed:$missing" >&2
	exit 2
fi

step() { echo "== $1"; }
some() { grep . || echo "(nothing)"; }

step "1. IOMMU enabled"
dmesg 2>&1 | grep -i -e iommu -e 'not permitted' | head -5 | some
step "2. hugepages reserved"
grep Huge /proc/meminfo | some
step "3. RDMA driver loaded"
lsmod | grep -E "mlx5|ib_" | some
step "4. RDMA devices visible"
rdma link 2>&1 | some
step "5. VFs created"
lspci 2>/dev/null | grep -i mellanox | head -10 | some
for dev in /sys/class/net/*/device; do
	[ -e "$dev" ] || continue
	nic=${dev%/device}
	nic=${nic##*/}
	step "6. DCQCN of $nic"
	cat "/sys/class/net/$nic/ecn/roce_rp/enable/3" 2>&1 | some
	step "7. speed of $nic"
	ethtool "$nic" 2>/dev/null | grep Speed | some
done
