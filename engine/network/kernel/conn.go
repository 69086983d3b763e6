package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Conn is an rtnetlink socket in the namespace of the thread that dialled it.
// It is safe for concurrent use. The kernel works on a request while it is
// being sent, so that calls do not block but for the kernel's own locks.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Request is one netlink message to be sent.
type Request = *nl.NetlinkRequest

// Dial opens a socket in the calling thread's namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		// Each only makes answers shorter or clearer; an old kernel may lack it.
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return nil, errors.Join(fmt.Errorf("set up a netlink socket: %w", err), unix.Close(fd))
		}
	}
	return &Conn{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// Close closes the socket; it may be called more than once.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// BatchError says which request of a batch failed first.
type BatchError struct {
	Index int
	Err   error
}

func (e *BatchError) Error() string { return e.Err.Error() }
func (e *BatchError) Unwrap() error { return e.Err }

// Do sends the requests together and waits for the acknowledgement of each.
// The kernel works on all of them even when one fails; the first failure is
// returned.
func (c *Conn) Do(reqs ...Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	var out []byte
	first := c.seq + 1
	for _, r := range reqs {
		c.seq++
		r.Seq = c.seq
		r.Flags |= unix.NLM_F_ACK | unix.NLM_F_REQUEST
		b := r.Serialize()
		out = append(out, b...)
		for len(out)%unix.NLMSG_ALIGNTO != 0 {
			out = append(out, 0)
		}
	}
	if err := c.send(out); err != nil {
		return err
	}
	var failed error
	for left := len(reqs); left > 0; {
		err := c.receive(func(h unix.NlMsghdr, data []byte) error {
			if h.Type != unix.NLMSG_ERROR || h.Seq < first || h.Seq > c.seq {
				return nil
			}
			left--
			if err := ackError(h, data); err != nil && failed == nil {
				failed = &BatchError{Index: int(h.Seq - first), Err: err}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return failed
}

// Dump sends one request and calls each with every answer's payload, which is
// valid only during the call.
func (c *Conn) Dump(r Request, each func(typ uint16, data []byte)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return unix.EBADF
	}
	c.seq++
	r.Seq = c.seq
	r.Flags |= unix.NLM_F_REQUEST
	multi := r.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP
	if err := c.send(r.Serialize()); err != nil {
		return err
	}
	for done := false; !done; {
		err := c.receive(func(h unix.NlMsghdr, data []byte) error {
			switch {
			case h.Seq != c.seq:
			case h.Type == unix.NLMSG_DONE:
				done = true
			case h.Type == unix.NLMSG_ERROR:
				done = true
				return ackError(h, data)
			default:
				each(h.Type, data)
				done = done || !multi
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) send(b []byte) error {
	err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err != nil {
		return fmt.Errorf("send to netlink: %w", err)
	}
	return nil
}

func (c *Conn) receive(each func(unix.NlMsghdr, []byte) error) error {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buf, 0)
	}
	if err != nil {
		return fmt.Errorf("receive from netlink: %w", err)
	}
	return messages(c.buf[:n], each)
}

// messages walks over the netlink messages of one datagram. It calls each for
// all of them and returns the first error.
func messages(b []byte, each func(unix.NlMsghdr, []byte) error) error {
	var failed error
	for len(b) >= unix.SizeofNlMsghdr {
		h := unix.NlMsghdr{
			Len:   binary.NativeEndian.Uint32(b),
			Type:  binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]),
			Seq:   binary.NativeEndian.Uint32(b[8:]),
			Pid:   binary.NativeEndian.Uint32(b[12:]),
		}
		if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
			return errors.New("netlink: malformed message")
		}
		if err := each(h, b[unix.SizeofNlMsghdr:h.Len]); err != nil && failed == nil {
			failed = err
		}
		next := (int(h.Len) + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
		b = b[min(next, len(b)):]
	}
	return failed
}

// ackError reads an acknowledgement: its error number and, where the kernel
// gives one, the sentence that explains it.
func ackError(h unix.NlMsghdr, data []byte) error {
	if len(data) < 4 {
		return errors.New("netlink: short acknowledgement")
	}
	errno := -int32(binary.NativeEndian.Uint32(data))
	if errno == 0 {
		return nil
	}
	err := error(unix.Errno(errno))
	const echoed = 4 + unix.SizeofNlMsghdr
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 || len(data) < echoed {
		return err
	}
	rest := data[echoed:]
	if h.Flags&unix.NLM_F_CAPPED == 0 {
		skip := int(binary.NativeEndian.Uint32(data[4:])) - unix.SizeofNlMsghdr
		if skip < 0 || skip > len(rest) {
			return err
		}
		rest = rest[skip:]
	}
	attributes(rest, func(typ uint16, v []byte) {
		if typ == unix.NLMSGERR_ATTR_MSG {
			err = fmt.Errorf("%w (%s)", unix.Errno(errno), text(v))
		}
	})
	return err
}

// attributes walks over netlink attributes; malformed tails are left out.
func attributes(b []byte, each func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		l := int(binary.NativeEndian.Uint16(b))
		if l < unix.SizeofRtAttr || l > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:l])
		b = b[min((l+3)&^3, len(b)):]
	}
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
