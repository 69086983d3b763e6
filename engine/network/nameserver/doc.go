// Package nameserver is the DNS server that containers on user networks see at
// 127.0.0.11. engine/network is its user and supplies a View for each
// container.
//
// answer.go decides, without network, what to say to a question or that it is
// to be forwarded; Server owns the sockets and goroutines of one container and
// waits for all of them in Close.
package nameserver
