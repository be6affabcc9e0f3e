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
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(2 * dcbTime))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		return dcbRefused(host.DCBAnswer(buf[:n], seq))
	}
}

// dcbRefused names the error numbers with which drivers turn a request down.
func dcbRefused(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("it needs CAP_NET_ADMIN (%w)", err)
	}
	return refusedBy(err)
}
