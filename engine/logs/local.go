package logs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"time"
)

// localFormat is the record of driver local, big endian:
//
//	mark 1, length of payload 3 | flags 1, time 8, line | CRC-32C of payload 4 | mark, length 4
//
// The length at the end lets tail walk backwards; the mark makes it unlikely
// that a place behind damage is taken for a record.
type localFormat struct{}

const (
	localHead   = 4
	localTail   = 8
	localFixed  = 9 // flags and time
	localMax    = maxLine + localFixed
	flagStream  = 3
	flagPartial = 4

	localMark    = 0xce << 24
	localMarkAll = 0xff << 24
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func localLength(b []byte) (int, bool) {
	v := binary.BigEndian.Uint32(b)
	n := int(v &^ localMarkAll)
	return n, v&localMarkAll == localMark && n >= localFixed && n <= localMax
}

func (localFormat) ext() string { return ".log" }

func (localFormat) append(b []byte, e Entry, _ map[string]string) []byte {
	n := localMark | uint32(localFixed+len(e.Line))
	b = binary.BigEndian.AppendUint32(b, n)
	payload := len(b)
	flags := byte(e.Stream) & flagStream
	if e.Partial {
		flags |= flagPartial
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixNano()))
	b = append(b, e.Line...)
	b = binary.BigEndian.AppendUint32(b, checksum(b[payload:]))
	return binary.BigEndian.AppendUint32(b, n)
}

func (localFormat) decode(b []byte, e *Entry) (int, error) {
	if len(b) < localHead {
		return 0, errShort
	}
	n, ok := localLength(b)
	if !ok {
		return 1, errCorrupt
	}
	total := localHead + n + localTail
	if len(b) < total {
		return 0, errShort
	}
	payload, tail := b[localHead:localHead+n], b[localHead+n:total]
	stream := Stream(payload[0] & flagStream)
	if !bytes.Equal(tail[4:], b[:localHead]) || binary.BigEndian.Uint32(tail) != checksum(payload) ||
		payload[0]&^(flagStream|flagPartial) != 0 || (stream != Stdout && stream != Stderr) {
		return 1, errCorrupt
	}
	*e = Entry{
		Time:    time.Unix(0, int64(binary.BigEndian.Uint64(payload[1:]))).UTC(),
		Stream:  stream,
		Line:    payload[localFixed:],
		Partial: payload[0]&flagPartial != 0,
	}
	return total, nil
}

func (f localFormat) prev(w *window, end int64) (int64, bool, error) {
	tail, err := w.bytes(end-4, end)
	if err != nil {
		return 0, false, err
	}
	n, ok := localLength(tail)
	if !ok {
		return 0, false, errCorrupt
	}
	start := end - int64(n) - localHead - localTail
	b, err := w.bytes(start, end)
	if err != nil {
		return 0, false, err
	}
	var e Entry
	if got, err := f.decode(b, &e); err != nil || int64(got) != end-start {
		return 0, false, errCorrupt
	}
	return start, e.Partial, nil
}

func (f localFormat) boundary(r io.ReaderAt, size int64) (int64, error) {
	if size == 0 {
		return 0, nil
	}
	if _, _, err := f.prev(&window{r: r}, size); err == nil {
		return size, nil
	}
	return scanForward(f, r, size)
}
