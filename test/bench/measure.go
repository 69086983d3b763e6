package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// subject is one way of doing what is measured.
type subject struct {
	name string
	run  func() error
}

// result holds the durations of one subject, sorted.
type result struct {
	name  string
	times []time.Duration
	err   error
}

func (r result) quantile(q float64) time.Duration {
	if len(r.times) == 0 {
		return 0
	}
	return r.times[min(len(r.times)-1, int(q*float64(len(r.times))))]
}

// measure lets the subjects take turns, rounds times, after one turn that does
// not count.
func measure(rounds int, subjects []subject) []result {
	results := make([]result, len(subjects))
	for i, s := range subjects {
		results[i] = result{name: s.name, err: s.run()}
	}
	for range rounds {
		for i, s := range subjects {
			if results[i].err != nil {
				continue
			}
			began := time.Now()
			results[i].err = s.run()
			results[i].times = append(results[i].times, time.Since(began))
		}
	}
	for i := range results {
		slices.Sort(results[i].times)
	}
	return results
}

// report prints a table; ratios are to the first subject that has a result.
func report(w io.Writer, title string, results []result) error {
	fmt.Fprintf(w, "\n%s\n", title)
	t := tabwriter.NewWriter(w, 2, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tmedian\tp10\tp90\tratio\t")
	var base time.Duration
	for _, r := range results {
		if r.err != nil {
			fmt.Fprintf(t, "%s\tfailed\t\t\t\t%v\n", r.name, r.err)
			continue
		}
		m := r.quantile(0.5)
		if base == 0 {
			base = m
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t\n", r.name, ms(m), ms(r.quantile(0.1)), ms(r.quantile(0.9)), float64(m)/float64(base))
	}
	return t.Flush()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
