// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// nicFeatures is a kernel and a driver that refuses or ignores what is asked.
type nicFeatures struct {
	is, asked bool
	err       error
	ignores   bool
}

func (n *nicFeatures) Change(_ string, config map[string]bool) error {
	n.asked = config["rx-fcs"]
	switch {
	case n.asked == n.is:
	case n.err != nil:
		return n.err
	case !n.ignores:
		n.is = n.asked
	}
	return nil
}

func (n *nicFeatures) Features(string) (map[string]bool, error) {
	return map[string]bool{"rx-fcs": n.is}, nil
}

// A wish that the driver does not meet is not left with the kernel.
func TestFeatureWishTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		nic  nicFeatures
		want bool // what it is in the end
		err  error
	}{
		"done":        {nicFeatures{}, true, nil},
		"ignored":     {nicFeatures{ignores: true}, false, nil},
		"refused":     {nicFeatures{err: unix.EIO}, false, unix.EIO},
		"not offered": {nicFeatures{err: unix.EOPNOTSUPP}, false, unix.EOPNOTSUPP},
	} {
		n := c.nic
		if err := changeFeature(&n, "eth0", "rx-fcs", true); !errors.Is(err, c.err) || n.is != c.want || n.asked != c.want {
			t.Errorf("%s: %v, it is %v and asked to be %v", name, err, n.is, n.asked)
		}
	}
}
