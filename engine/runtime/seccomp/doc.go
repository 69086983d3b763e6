// Package seccomp spares containers the compilation of their seccomp profile.
//
// libcontainer has libseccomp compile the profile of every container and of
// every exec anew, in the process that becomes the container's: about 20 ms
// for Docker's default profile, more than all the rest of a start. The outcome
// depends on nothing but the profile. So the first process with a profile
// hands what libseccomp made to the shim, which keeps it in a file, and later
// ones are given the file.
//
// The two functions of libseccomp concerned are wrapped at link time (ld
// --wrap). Nothing else changes: libcontainer decides when the filter is
// loaded, adds its own part to it, and loads it. Without a file, or in a
// program linked without the wrapper, libseccomp compiles as ever: the file
// can only make a start faster. It lies in a folder that only root can write,
// and its name is a digest of the profile and of libseccomp's version.
//
// The file travels as the one extra file of a libcontainer process, and is
// closed before the container's program runs.
package seccomp
