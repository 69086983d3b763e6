package image

import (
	"fmt"
	"sync"
	"testing"
)

// TestPrepareWhileCollecting: a layer that was just made is not taken for
// rubbish by a collection that goes on at the same time.
func TestPrepareWhileCollecting(t *testing.T) {
	f := newFixture(t, nil)
	f.load(t, two("demo:1"))
	img, err := f.Get(t.Context(), "demo:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Something to collect, or the collector looks at no snapshot.
			key := fmt.Sprint("gone", i)
			if err := f.PrepareSnapshot(t.Context(), key, img); err != nil {
				t.Error(err)
				return
			}
			if err := f.RemoveSnapshot(t.Context(), key); err != nil {
				t.Error(err)
				return
			}
			if err := f.store.Collect(t.Context()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 300 {
		key := fmt.Sprint("kept", i)
		if err := f.PrepareSnapshot(t.Context(), key, img); err != nil {
			t.Fatal(err)
		}
		if _, err := f.SnapshotMounts(t.Context(), key); err != nil {
			t.Fatalf("layer %d: %v", i, err)
		}
	}
	close(stop)
	wg.Wait()
}
