package network

import (
	"testing"
	"time"
)

// BenchmarkSandbox is what the network takes of `run --rm`: the three calls
// one after the other, as a container without published ports makes them.
func BenchmarkSandbox(b *testing.B) {
	for _, c := range []struct {
		name string
		opts []wants
	}{
		{"bridge", nil},
		{"published", []wants{publish("80/tcp", "", "8080")}},
		{"user", []wants{on("user", nil)}},
		{"none", []wants{on("none", nil)}},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b)
			if c.name == "user" {
				r.create("user")
			}
			var open, setup, closing time.Duration
			for b.Loop() {
				req := SandboxRequest{ID: id64("bench"), Name: "bench", Hostname: "bench"}
				for _, o := range c.opts {
					o(&req)
				}
				if req.Endpoints == nil {
					on("bridge", nil)(&req)
				}
				t0 := time.Now()
				_, err := r.m.Open(r.ctx, req)
				check(b, err)
				t1 := time.Now()
				_, err = r.m.Setup(r.ctx, req)
				check(b, err)
				t2 := time.Now()
				check(b, r.m.Close(r.ctx, req.ID))
				t3 := time.Now()
				// As in a loop of `run --rm`, where a container runs meanwhile.
				time.Sleep(20 * time.Millisecond)
				open, setup, closing = open+t1.Sub(t0), setup+t2.Sub(t1), closing+t3.Sub(t2)
			}
			for name, d := range map[string]time.Duration{"open": open, "setup": setup, "close": closing} {
				b.ReportMetric(float64(d.Microseconds())/float64(b.N), name+"-µs/op")
			}
		})
	}
}
