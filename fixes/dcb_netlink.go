// SPDX-License-Identifier: Apache-2.0

package fixes

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostcheck/hostcheck/internal/host"
)

// dcbTime is how long a driver may take: some restart all queues, and talk to
// firmware for each of 64 entries.
const dcbTime = time.Minute

// dcbSend makes one request of the kernel, which answers when the driver is
// done. The socket gives up a little later than who waits for it.
func dcbSend(ifname string, r host.DCBRequest) error {
	const seq = 1
	m, err := r.Encode(ifname, seq)
	if err != nil {
		return err
	}
	return host.NetlinkTalk(unix.NETLINK_ROUTE, m, 2*dcbTime, func(b []byte) (bool, error) {
		return true, dcbRefused(host.DCBAnswer(b, seq))
	})
}

// dcbRefused names the error numbers with which drivers turn a request down.
func dcbRefused(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("it needs CAP_NET_ADMIN (%w)", err)
	}
	return refusedBy(err)
}
