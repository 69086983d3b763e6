package logs

import (
	"fmt"
	"sync"
)

// ring is mode=non-blocking: WriteEntry only queues, a goroutine writes, and
// what does not fit into the buffer is dropped and counted. Close waits until
// everything queued has been written.
type ring struct {
	to  Writer
	max int64

	mu      sync.Mutex
	filled  sync.Cond
	queue   []Entry
	size    int64
	dropped int
	closed  bool
	done    sync.WaitGroup
	err     error
}

func newRing(to Writer, size int64) *ring {
	r := &ring{to: to, max: size}
	r.filled.L = &r.mu
	r.done.Go(r.run)
	return r
}

func (r *ring) WriteEntry(e Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if len(r.queue) > 0 && r.size+int64(len(e.Line)) > r.max {
		r.dropped++
		return nil
	}
	e.Line = append([]byte(nil), e.Line...)
	if r.dropped > 0 {
		note := fmt.Sprintf("[cleat: %d log entries were lost: the buffer of mode=non-blocking was full]", r.dropped)
		r.queue = append(r.queue, Entry{Time: e.Time, Stream: Stderr, Line: []byte(note)})
		r.dropped = 0
	}
	r.queue = append(r.queue, e)
	r.size += int64(len(e.Line))
	r.filled.Signal()
	return nil
}

func (r *ring) run() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.queue) == 0 && !r.closed {
			r.filled.Wait()
		}
		if len(r.queue) == 0 {
			return
		}
		batch := r.queue
		r.queue, r.size = nil, 0
		r.mu.Unlock()
		var err error
		for _, e := range batch {
			if werr := r.to.WriteEntry(e); werr != nil {
				err = werr
			}
		}
		r.mu.Lock()
		if err != nil {
			r.err = err
		}
	}
}

func (r *ring) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.filled.Signal()
	r.mu.Unlock()
	r.done.Wait()
	if err := r.to.Close(); err != nil {
		return err
	}
	return r.err
}
