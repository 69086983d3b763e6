package logs

import (
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
)

// packer compresses finished segments one after the other in a goroutine that
// exists only while there is work; stop waits for it.
type packer struct {
	dir, ext string

	mu      sync.Mutex
	queue   []int
	running bool
	stopped bool
	idle    sync.WaitGroup
}

func (p *packer) init(dir, ext string) { p.dir, p.ext = dir, ext }

func (p *packer) add(seq int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.queue {
		if q == seq {
			return
		}
	}
	if p.stopped {
		return
	}
	p.queue = append(p.queue, seq)
	if !p.running {
		p.running = true
		p.idle.Go(p.work)
	}
}

// remove deletes a segment in both forms. It excludes finish, which would
// otherwise bring a removed one back.
func (p *packer) remove(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = os.Remove(path)         // absent, or tried again at the next rotation
	_ = os.Remove(path + ".gz") // as above
}

func (p *packer) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.idle.Wait()
}

func (p *packer) work() {
	for {
		p.mu.Lock()
		if p.stopped || len(p.queue) == 0 {
			p.running = false
			p.mu.Unlock()
			return
		}
		seq := p.queue[0] // stays in the queue while in work, so that add sees it
		p.mu.Unlock()

		path := segmentPath(p.dir, p.ext, seq)
		tmp := path + ".gz.tmp"
		err := p.pack(path, tmp)

		p.mu.Lock()
		p.queue = p.queue[1:]
		if err == nil {
			err = finish(path, tmp)
		}
		if err != nil {
			_ = os.Remove(tmp) // a full disk: the segment stays as it is
		}
		p.mu.Unlock()
	}
}

// finish puts the compressed file in the place of the plain one, unless that
// has been removed by rotation meanwhile.
func finish(path, tmp string) error {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if err := os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

var errStopped = errors.New("log writer is closing")

// stoppable ends a copy when the packer is to stop.
type stoppable struct {
	p *packer
	r io.Reader
}

func (s stoppable) Read(b []byte) (int, error) {
	s.p.mu.Lock()
	stopped := s.p.stopped
	s.p.mu.Unlock()
	if stopped {
		return 0, errStopped
	}
	return s.r.Read(b)
}

func (p *packer) pack(path, tmp string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close() // opened for reading
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// The fastest level: its state is the smallest, and it lives in a shim.
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, stoppable{p, in}); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	// The plain file goes away on the strength of this one.
	if err := out.Sync(); err != nil {
		return err
	}
	// since skips segments by their time of change.
	return os.Chtimes(tmp, fi.ModTime(), fi.ModTime())
}

// openSegment opens segment seq, compressed or not, for reading; fs.ErrNotExist
// when rotation has removed it.
func openSegment(dir, ext string, seq int) (f *os.File, gz bool, err error) {
	path := segmentPath(dir, ext, seq)
	if f, err = os.Open(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, false, err
	}
	f, err = os.Open(path + ".gz")
	return f, true, err
}
