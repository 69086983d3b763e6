package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Watcher puts the table back when another program has removed a part of it,
// such as a firewall that flushes everything when it is reloaded.
type Watcher struct {
	f    *os.File
	done chan struct{}
}

// Watch begins to watch, in the calling thread's namespace. restored is called
// after each repair. The goroutine ends with Close.
func (t *Table) Watch(log *slog.Logger, restored func()) (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watch nftables: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nftables events")
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch nftables: %w", err), f.Close())
	}
	w := &Watcher{f: f, done: make(chan struct{})}
	go w.loop(t, log, restored)
	return w, nil
}

// Close ends the watching and waits for it.
func (w *Watcher) Close() error {
	err := w.f.Close()
	<-w.done
	return err
}

func (w *Watcher) loop(t *Table, log *slog.Logger, restored func()) {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	damaged := false
	for {
		n, err := w.f.Read(buf)
		overrun := errors.Is(err, unix.ENOBUFS)
		if err != nil && !overrun {
			if !errors.Is(err, os.ErrClosed) {
				log.Error("cannot watch nftables any more", "error", err)
			}
			return
		}
		end := overrun
		if overrun {
			damaged = true // some events are lost, so it may be
		} else {
			hit, over := t.concerns(buf[:n])
			damaged, end = damaged || hit, over
		}
		if !damaged || !end {
			continue
		}
		damaged = false
		if err := t.restore(); err != nil {
			log.Error("cannot put the packet rules back", "table", t.name, "error", err)
			continue
		}
		log.Warn("another program changed the packet rules; put back", "table", t.name)
		restored()
	}
}

// concerns says whether events tell of somebody else taking something out of
// the table, and whether a transaction ended.
func (t *Table) concerns(b []byte) (hit, end bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		l := int(binary.NativeEndian.Uint32(b))
		if l < unix.SizeofNlMsghdr || l > len(b) {
			return hit, end
		}
		typ := binary.NativeEndian.Uint16(b[4:])
		port := binary.NativeEndian.Uint32(b[12:])
		if typ>>8 == unix.NFNL_SUBSYS_NFTABLES {
			switch typ & 0xff {
			case unix.NFT_MSG_NEWGEN:
				end = true
			case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET, unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWRULE:
				hit = hit || port != t.port && tableOf(b[unix.SizeofNlMsghdr:l]) == t.name
			}
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return hit, end
}

// tableOf is the table that an event is about: in every kind of event it is
// the first attribute after the family's header.
func tableOf(b []byte) string {
	const header = 4
	if len(b) < header+unix.SizeofRtAttr || b[0] != unix.NFPROTO_INET {
		return ""
	}
	b = b[header:]
	l := int(binary.NativeEndian.Uint16(b))
	if l < unix.SizeofRtAttr || l > len(b) || binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED != unix.NFTA_TABLE_NAME {
		return ""
	}
	return unix.ByteSliceToString(b[unix.SizeofRtAttr:l])
}

func (t *Table) restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sets == nil { // removed by Remove
		return nil
	}
	return t.rebuild()
}
