package layer

import (
	"hash"
	"io"
	"sync"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

const (
	chunkSize  = 256 << 10
	chunkCount = 8
)

// chunk is a piece of the plain tar, read once and used twice: by the hash and
// by the unpacker. It goes back to the free list after both.
type chunk struct {
	data []byte
	err  error // the reader's end, io.EOF or worse
	uses sync.WaitGroup
}

// pipeline reads src in a goroutine of its own, hashes it in a second one and
// serves it to the caller, so that decompression, hashing and unpacking use
// several processors. Close waits for the goroutines; src must then return.
type pipeline struct {
	out     chan *chunk
	current *chunk
	rest    []byte
	n       int64
	stop    chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

// newPipeline starts the two goroutines. More than limit bytes (0: any number)
// end the stream with an error.
func newPipeline(src io.Reader, h hash.Hash, limit int64) *pipeline {
	p := &pipeline{out: make(chan *chunk, chunkCount), stop: make(chan struct{})}
	toHash := make(chan *chunk, chunkCount)
	free := make(chan []byte, chunkCount)
	for range chunkCount {
		free <- nil
	}
	p.done.Go(func() {
		for c := range toHash {
			h.Write(c.data)
			c.uses.Done()
		}
	})
	var recycle sync.WaitGroup
	p.done.Go(func() {
		defer recycle.Wait()
		defer close(p.out)
		defer close(toHash)
		total := int64(0)
		for {
			var buf []byte
			select {
			case buf = <-free:
			case <-p.stop:
				return
			}
			if buf == nil {
				buf = make([]byte, chunkSize)
			}
			n, err := io.ReadFull(src, buf[:chunkSize])
			if err == io.ErrUnexpectedEOF {
				err = io.EOF
			}
			total += int64(n)
			if limit > 0 && total > limit {
				n, err = 0, errdefs.As(errdefs.ErrExhausted, errTooLarge)
			}
			c := &chunk{data: buf[:n], err: err}
			c.uses.Add(2)
			toHash <- c
			select {
			case p.out <- c:
			case <-p.stop:
				c.uses.Done()
				return
			}
			if err != nil {
				return
			}
			recycle.Go(func() {
				c.uses.Wait()
				free <- buf
			})
		}
	})
	return p
}

func (p *pipeline) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.current != nil {
			if p.current.err != nil {
				return 0, p.current.err
			}
			p.current.uses.Done()
			p.current = nil
		}
		c, ok := <-p.out
		if !ok {
			return 0, io.ErrClosedPipe
		}
		p.current, p.rest = c, c.data
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	p.n += int64(n)
	return n, nil
}

// Close ends the goroutines; the hash is complete when Read has returned io.EOF.
func (p *pipeline) Close() {
	p.once.Do(func() {
		close(p.stop)
		if p.current != nil && p.current.err == nil {
			p.current.uses.Done()
		}
		for c := range p.out { // what was read and is not wanted any more
			c.uses.Done()
		}
		p.done.Wait()
	})
}
