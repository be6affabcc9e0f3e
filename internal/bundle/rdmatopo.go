// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/hostcheck/hostcheck/internal/pattern"
)

// KindRDMATopo is a dump of rdma_topo (rdma-core, "rdma_topo dump"): a JSON
// list of PCI functions with their place, configuration space and modalias.
// Host bridges and a few system devices are left out of it.
const KindRDMATopo = "rdma_topo"

const (
	maxDump      = 64 << 20
	maxDevices   = 20_000
	configBytes  = 4096
	maxSubsystem = 4096 // names in one class of one device
)

// topoDevice is one function. What the tool could not read is null.
type topoDevice struct {
	Realpath   string              `json:"realpath"` // /sys/devices/pci0000:00/…/0000:1a:00.0
	Config     []byte              `json:"config"`   // zlib, base64
	Modalias   string              `json:"modalias"`
	IOMMUGroup *int                `json:"iommu_group"`
	NUMANode   *int                `json:"numa_node"`
	Subsystems map[string][]string `json:"subsystems"` // drm, infiniband, net, nvme -> names
}

func isRDMATopo(head []byte) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(head), []byte("["))
	if !ok {
		return false
	}
	rest = bytes.TrimSpace(rest)
	return bytes.HasPrefix(rest, []byte("{")) || bytes.HasPrefix(rest, []byte("]"))
}

func readRDMATopo(r io.Reader) (*Bundle, error) {
	in := &io.LimitedReader{R: r, N: maxDump}
	d := json.NewDecoder(in)
	f := newForeign("a dump of rdma_topo")
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("cannot decode it: %w", err)
	}
	n := 0
	for d.More() {
		if n++; n > maxDevices {
			return nil, fmt.Errorf("it has more than %d devices", maxDevices)
		}
		var t topoDevice
		if err := d.Decode(&t); err != nil {
			if in.N == 0 {
				return nil, fmt.Errorf("it has more than %d MiB", maxDump>>20)
			}
			return nil, fmt.Errorf("cannot decode device %d: %w", n, err)
		}
		if err := f.device(&t); err != nil {
			return nil, fmt.Errorf("device %d: %w", n, err)
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, fmt.Errorf("it is truncated after device %d: %w", n, err)
	}
	if n == 0 {
		return nil, errors.New("it is a dump of rdma_topo without a device")
	}
	f.list(func(dir string) bool {
		return dir == "/sys/bus/pci/devices" || path.Base(dir) == "net" || path.Base(dir) == "infiniband"
	})
	return &Bundle{Kind: KindRDMATopo, Host: f.snap}, nil
}

var (
	topoPath = pattern.Late(`^/sys/devices(/[A-Za-z0-9_:.-]+)+/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])$`)
	// modalias of Documentation/ABI/testing/sysfs-bus-pci, made by pci_uevent
	topoAlias = pattern.Late(`^pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv0000([0-9A-F]{4})sd0000([0-9A-F]{4})bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-F]{2})$`)
	topoName  = pattern.Late(`^[A-Za-z0-9_.@-]{1,64}$`)
)

// device makes the files of sysfs that say the same.
func (f *foreign) device(t *topoDevice) error {
	at := topoPath().FindStringSubmatch(t.Realpath)
	if at == nil || t.Realpath != path.Clean(t.Realpath) || len(t.Realpath) > maxPath {
		return fmt.Errorf("its realpath %.200q is not one of a PCI function", t.Realpath)
	}
	bdf := at[2]
	link := "/sys/bus/pci/devices/" + bdf
	if _, twice := f.snap.Links[link]; twice {
		return fmt.Errorf("%s is there twice", bdf)
	}
	f.note(link)
	f.snap.Links[link] = "../../../" + strings.TrimPrefix(t.Realpath, "/sys/")
	put := func(name, text string) { f.file(t.Realpath+"/"+name, []byte(text+"\n")) }
	id := topoAlias().FindStringSubmatch(t.Modalias)
	if id == nil {
		return fmt.Errorf("%s: its modalias %.100q is not one of a PCI function", bdf, t.Modalias)
	}
	put("modalias", t.Modalias)
	for i, name := range []string{"vendor", "device", "subsystem_vendor", "subsystem_device"} {
		put(name, "0x"+strings.ToLower(id[i+1]))
	}
	put("class", "0x"+strings.ToLower(id[5]+id[6]+id[7]))
	if t.NUMANode != nil {
		put("numa_node", strconv.Itoa(*t.NUMANode))
	}
	if n := t.IOMMUGroup; n != nil && *n >= 0 {
		f.note(t.Realpath + "/iommu_group")
		f.snap.Links[t.Realpath+"/iommu_group"] = "/sys/kernel/iommu_groups/" + strconv.Itoa(*n)
	}
	z, err := zlib.NewReader(bytes.NewReader(t.Config))
	if err != nil {
		return fmt.Errorf("%s: its config cannot be decoded: %w", bdf, err)
	}
	config, err := io.ReadAll(io.LimitReader(z, configBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: its config cannot be decoded: %w", bdf, err)
	case len(config) > configBytes:
		return fmt.Errorf("%s: its config has more than %d bytes", bdf, configBytes)
	}
	f.file(t.Realpath+"/config", config)
	for _, class := range []string{"net", "infiniband"} {
		if len(t.Subsystems[class]) > maxSubsystem {
			return fmt.Errorf("%s: it has more than %d names of class %s", bdf, maxSubsystem, class)
		}
		for _, name := range t.Subsystems[class] {
			if !topoName().MatchString(name) || name == "." || name == ".." {
				return fmt.Errorf("%s: %.100q is no name of class %s", bdf, name, class)
			}
			f.note(t.Realpath + "/" + class + "/" + name)
		}
	}
	return nil
}
