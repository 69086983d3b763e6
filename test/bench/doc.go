// Command bench measures Cleat beside every peer that is installed: docker,
// podman, crun and runc. Figures of one run are comparable: the subjects take
// turns, and medians and ratios are printed.
//
//	make bench            everything
//	go run ./test/bench -only run,ps
package main
