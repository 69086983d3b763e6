package image

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const reportEvery = 100 * time.Millisecond

// phase of a layer in a pull; it only moves forward.
type phase int

const (
	waiting phase = iota
	downloading
	downloaded
	unpacking
	complete
)

// pullReport turns what happens to layers into Docker's messages. The layers'
// download is watched by watch; the rest is told by the unpacker.
type pullReport struct {
	send Progress

	mu     sync.Mutex
	layers map[digest.Digest]*layerReport
	order  []digest.Digest
}

type layerReport struct {
	desc  ocispec.Descriptor
	phase phase
	last  time.Time
}

func newPullReport(send Progress) *pullReport {
	if send == nil {
		send = func(jsonstream.Message) {}
	}
	return &pullReport{send: send, layers: make(map[digest.Digest]*layerReport)}
}

func (r *pullReport) line(id, status string) { r.send(jsonstream.Message{ID: id, Status: status}) }

// add announces the layers of a manifest.
func (r *pullReport) add(layers []ocispec.Descriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range layers {
		if r.layers[d.Digest] == nil {
			r.layers[d.Digest] = &layerReport{desc: d}
			r.order = append(r.order, d.Digest)
			r.line(shortID(d.Digest), "Pulling fs layer")
		}
	}
}

// advance moves a layer forward and says so; it is false when it was there already.
func (r *pullReport) advance(d digest.Digest, to phase, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.layers[d]
	if l == nil || l.phase >= to {
		return
	}
	l.phase = to
	r.line(shortID(d), status)
}

func (r *pullReport) started(d ocispec.Descriptor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.layers[d.Digest]; l != nil && l.phase < downloading {
		l.phase = downloading
	}
}

func (r *pullReport) fetched(d ocispec.Descriptor) {
	r.advance(d.Digest, downloaded, "Download complete")
}
func (r *pullReport) exists(d ocispec.Descriptor) { r.advance(d.Digest, downloaded, "Already exists") }

func (r *pullReport) extracting(d ocispec.Descriptor, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.layers[d.Digest]
	if l == nil || l.phase == complete {
		return
	}
	if l.phase == unpacking && time.Since(l.last) < reportEvery && n < l.desc.Size {
		return
	}
	l.phase, l.last = unpacking, time.Now()
	r.send(jsonstream.Message{ID: shortID(d.Digest), Status: "Extracting",
		Progress: &jsonstream.Progress{Current: min(n, d.Size), Total: d.Size}})
}

func (r *pullReport) extracted(d ocispec.Descriptor) { r.advance(d.Digest, complete, "Pull complete") }

// watch reports the progress of downloads until stop is closed.
func (r *pullReport) watch(ctx context.Context, cs content.IngestManager, stop <-chan struct{}) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, d := range r.inDownload() {
			st, err := cs.Status(ctx, remotes.MakeRefKey(ctx, d))
			if err != nil {
				continue // not begun, or just finished
			}
			r.downloading(d, st.Offset)
		}
	}
}

func (r *pullReport) inDownload() []ocispec.Descriptor {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ocispec.Descriptor
	for _, d := range r.order {
		if r.layers[d].phase == downloading {
			out = append(out, r.layers[d].desc)
		}
	}
	return out
}

func (r *pullReport) downloading(d ocispec.Descriptor, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.layers[d.Digest]; l == nil || l.phase != downloading {
		return
	}
	r.send(jsonstream.Message{ID: shortID(d.Digest), Status: "Downloading",
		Progress: &jsonstream.Progress{Current: n, Total: d.Size}})
}
