// Package kernel is the thin layer between engine/network and Linux: namespaces,
// rtnetlink and the few sysctls that networks need. It decides nothing.
//
// Its user is engine/network only. It keeps no state but open descriptors;
// every Conn and Namespace belongs to who opened it. Requests are built here
// as netlink messages and sent in batches, because a container's whole network
// is then two system calls instead of a dozen.
package kernel
