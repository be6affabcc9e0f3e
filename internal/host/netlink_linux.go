// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// netlinkSeq numbers the only request of a socket.
const netlinkSeq = 1

// errInterrupted is a dump during which the kernel's list changed.
var errInterrupted = errors.New("the kernel's list changed while it was read; try again")

// NetlinkAsk sends one request on a socket of its own and hands each message of
// the answer to each. The socket belongs to the network namespace of the thread
// that calls. What decides a verdict is asked by way of [Ask] instead.
func NetlinkAsk(protocol int, request []byte, each func(kind uint16, body []byte) error) error {
	return NetlinkTalk(protocol, request, netlinkTimeout, func(b []byte) (bool, error) { return netlinkMessages(b, each) })
}

// NetlinkTalk sends one request on a socket of its own and hands each datagram of
// the kernel's answer to reply, until that is done or fails. patience is for
// one datagram.
func NetlinkTalk(protocol int, request []byte, patience time.Duration, reply func(datagram []byte) (done bool, err error)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	defer closeRoot(fd)
	tv := unix.NsecToTimeval(int64(patience / time.Nanosecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, flags, from, err := unix.Recvmsg(fd, buf, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case flags&unix.MSG_TRUNC != 0:
			return ErrTooLarge
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
			continue // not from the kernel
		}
		if done, err := reply(buf[:n]); done || err != nil {
			return err
		}
	}
}

// netlinkMessages walks the messages of one datagram. done says that no other
// datagram follows.
func netlinkMessages(b []byte, each func(kind uint16, body []byte) error) (done bool, err error) {
	ne := binary.NativeEndian
	if len(b) < unix.SizeofNlMsghdr {
		return false, errors.New("the netlink reply is too short")
	}
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind, flags := int(ne.Uint32(b)), ne.Uint16(b[4:]), ne.Uint16(b[6:])
		if size < unix.SizeofNlMsghdr || size > len(b) || ne.Uint32(b[8:]) != netlinkSeq {
			return false, errors.New("the netlink reply is not the one asked for")
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch {
		case kind == unix.NLMSG_ERROR && len(body) < 4:
			return false, errors.New("the netlink reply is damaged: an error without its number")
		case (kind == unix.NLMSG_ERROR || kind == unix.NLMSG_DONE) && len(body) >= 4:
			if errno := -int32(ne.Uint32(body)); errno > 0 {
				return true, unix.Errno(errno)
			}
			return true, nil
		case kind == unix.NLMSG_DONE:
			return true, nil
		case flags&unix.NLM_F_DUMP_INTR != 0:
			return true, errInterrupted
		}
		if err := each(kind, body); err != nil {
			return true, err
		}
		if flags&unix.NLM_F_MULTI == 0 {
			return true, nil
		}
		b = b[min(align4(size), len(b)):]
	}
	return false, nil
}

// NetlinkMessage is a request with its header, for [NetlinkAsk].
func NetlinkMessage(kind, flags uint16, body ...byte) []byte {
	ne := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	ne.PutUint32(b[0:], uint32(unix.SizeofNlMsghdr+len(body)))
	ne.PutUint16(b[4:], kind)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	ne.PutUint32(b[8:], netlinkSeq)
	return append(b, body...)
}

// NetlinkAttr is an attribute, padded.
func NetlinkAttr(kind uint16, v ...byte) []byte {
	ne := binary.NativeEndian
	b := make([]byte, unix.SizeofNlAttr, unix.SizeofNlAttr+align4(len(v)))
	ne.PutUint16(b[0:], uint16(unix.SizeofNlAttr+len(v)))
	ne.PutUint16(b[2:], kind)
	return append(append(b, v...), make([]byte, align4(len(v))-len(v))...)
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// genericFamily asks for the number of a family of generic netlink. The error
// is ENOENT where the kernel has no such family.
func genericFamily(name string) (id uint16, err error) {
	body := append([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, NetlinkAttr(unix.CTRL_ATTR_FAMILY_NAME, append([]byte(name), 0)...)...)
	err = NetlinkAsk(unix.NETLINK_GENERIC, NetlinkMessage(unix.GENL_ID_CTRL, 0, body...), func(_ uint16, b []byte) error {
		if len(b) < unix.GENL_HDRLEN {
			return errors.New("the netlink reply is damaged: it is too short")
		}
		return eachAttr(b[unix.GENL_HDRLEN:], func(kind uint16, v []byte) error {
			if kind == unix.CTRL_ATTR_FAMILY_ID && len(v) >= 2 {
				id = binary.NativeEndian.Uint16(v)
			}
			return nil
		})
	})
	if err == nil && id == 0 {
		err = fmt.Errorf("the kernel does not number the netlink family %s", name)
	}
	return id, err
}
