package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// MaxFrame bounds a frame, so that a broken peer cannot make us allocate
// without limit. An OCI spec with a seccomp profile is about 60 KiB.
const MaxFrame = 16 << 20

// WriteFrame writes v as one frame in one write, so that frames of concurrent
// writers who hold a lock around the call never mix.
func WriteFrame(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	if len(data) > MaxFrame {
		return fmt.Errorf("frame of %d bytes is longer than %d", len(data), MaxFrame)
	}
	buf := make([]byte, 4, 4+len(data))
	binary.BigEndian.PutUint32(buf, uint32(len(data)))
	_, err = w.Write(append(buf, data...))
	return err
}

// ReadFrame reads one frame into v. It reads not a byte more than the frame.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > MaxFrame {
		return fmt.Errorf("frame of %d bytes is longer than %d", n, MaxFrame)
	}
	data, err := readN(r, int(n))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode frame: %w", err)
	}
	return nil
}

// readN reads n bytes, growing with what really arrives: a length alone does
// not allocate.
func readN(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	data := make([]byte, 0, min(n, step))
	for len(data) < n {
		grow := min(n-len(data), max(step, len(data)))
		start := len(data)
		data = append(data, make([]byte, grow)...)
		if _, err := io.ReadFull(r, data[start:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return data, nil
}
