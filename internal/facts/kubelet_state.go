// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/host"
)

// readState reads a state file, which root alone may do.
func (k *Kubelet) readState(h *host.Host, field, p string) *KubeletState {
	b, err := h.Read(p)
	if host.Absent(err) {
		return nil
	}
	if err != nil {
		k.Unknown.say(field, whyNot(h, err))
		return nil
	}
	s, err := parseKubeletState(b)
	if err != nil {
		k.Unknown.say(field, p+": "+err.Error())
		return nil
	}
	s.Source = p
	return &s
}

// parseKubeletState reads the checkpoint of the CPU or of the memory manager
// (kubernetes pkg/kubelet/cm/cpumanager/state/checkpoint.go).
func parseKubeletState(text []byte) (s KubeletState, err error) {
	var file struct {
		Policy *string `json:"policyName"`
		Shared *string `json:"defaultCpuSet"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return s, errors.New("not the JSON of a state file")
	}
	if file.Policy == nil || *file.Policy == "" {
		return s, errors.New("names no policy; it is of a form that is not known here")
	}
	if file.Shared != nil {
		set, err := ParseCPUSet(*file.Shared)
		if err != nil {
			return s, err
		}
		s.Shared = new(set.String())
	}
	s.Policy = file.Policy
	return s, nil
}

// kubepods are the cgroups of all pods: of the systemd driver and of the
// cgroupfs driver, in version 2 and in version 1.
var kubepods = [...]struct{ dir, end string }{
	{"/sys/fs/cgroup/kubepods.slice", ".max"},
	{"/sys/fs/cgroup/kubepods", ".max"},
	{"/sys/fs/cgroup/hugetlb/kubepods.slice", ".limit_in_bytes"},
	{"/sys/fs/cgroup/hugetlb/kubepods", ".limit_in_bytes"},
}

// readLimits reads hugetlb.SIZE.max of the pods' cgroup. The kubelet sets it
// once at its start, to what it counted then, where it enforces the node's
// allocatable on pods, as by default
// (pkg/kubelet/cm/node_container_manager_linux.go).
func (k *Kubelet) readLimits(h *host.Host) {
	const unlimited = 1 << 60 // version 1 prints its largest number
	k.Unknown.say("pod_hugepages", "no cgroup of all pods is seen in /sys/fs/cgroup, or it limits no huge pages")
	for _, at := range kubepods {
		names, err := h.List(at.dir)
		if err != nil {
			continue
		}
		k.Limits = []KubeletLimit{}
		for _, n := range names {
			size, ok := strings.CutPrefix(n, "hugetlb.")
			size, end := strings.CutSuffix(size, at.end)
			kb, sized := cgroupSizeKB(size)
			if !ok || !end || !sized {
				continue
			}
			p := path.Join(at.dir, n)
			if v, err := h.Int(p); err == nil && v >= 0 && v < unlimited {
				k.Limits = append(k.Limits, KubeletLimit{kb, v, p})
			}
		}
		if len(k.Limits) > 0 {
			delete(k.Unknown, "pod_hugepages")
			return
		}
	}
	k.Limits = nil
}

// cgroupSizeKB reads the size in a file's name: "64KB", "2MB", "1GB"
// (mm/hugetlb_cgroup.c, mem_fmt).
func cgroupSizeKB(s string) (kb int64, ok bool) {
	for i, unit := range []string{"KB", "MB", "GB"} {
		if digits, found := strings.CutSuffix(s, unit); found {
			n, err := strconv.ParseUint(digits, 10, 20)
			return int64(n) << (10 * i), err == nil && n > 0
		}
	}
	return 0, false
}

var quantityUnits = map[string]*big.Rat{
	"n": big.NewRat(1, 1e9), "u": big.NewRat(1, 1e6), "m": big.NewRat(1, 1000), "": big.NewRat(1, 1),
	"k": big.NewRat(1e3, 1), "M": big.NewRat(1e6, 1), "G": big.NewRat(1e9, 1), "T": big.NewRat(1e12, 1), "P": big.NewRat(1e15, 1), "E": big.NewRat(1e18, 1),
	"Ki": big.NewRat(1<<10, 1), "Mi": big.NewRat(1<<20, 1), "Gi": big.NewRat(1<<30, 1), "Ti": big.NewRat(1<<40, 1), "Pi": big.NewRat(1<<50, 1), "Ei": big.NewRat(1<<60, 1),
}

// ParseQuantity reads a quantity of Kubernetes, "500m", "1.5Gi", "2e3", and
// gives thousandths, rounded up (apimachinery pkg/api/resource/quantity.go).
func ParseQuantity(s string) (milli int64, err error) {
	bad := fmt.Errorf("%.40q is not a quantity such as 500m or 1Gi", s)
	end := strings.IndexFunc(s, func(r rune) bool { return r != '.' && r != '+' && r != '-' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(s)
	}
	number, unit := s[:end], s[end:]
	if number == "" || len(s) > 40 {
		return 0, bad
	}
	v, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, bad
	}
	scale := quantityUnits[unit]
	if scale == nil {
		exp, ok := strings.CutPrefix(strings.ToLower(unit), "e")
		n, err := strconv.Atoi(exp)
		if !ok || err != nil || n < -18 || n > 18 {
			return 0, bad
		}
		scale = new(big.Rat)
		scale.SetString("1e" + strconv.Itoa(n))
	}
	v.Mul(v, scale).Mul(v, big.NewRat(1000, 1))
	whole, rest := new(big.Int).QuoRem(v.Num(), v.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	if !whole.IsInt64() {
		return 0, fmt.Errorf("%.40q is too large", s)
	}
	return whole.Int64(), nil
}
