//go:build linux && cgo && seccomp

package seccomp

/*
#cgo LDFLAGS: -Wl,--wrap=seccomp_export_bpf -Wl,--wrap=seccomp_rule_add_array -lseccomp

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

struct version { unsigned int major, minor, micro; };
extern const struct version *seccomp_version(void);

extern int __real_seccomp_export_bpf(const void *ctx, int fd);
extern int __real_seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int n, const void *args);

static const char *program; // compiled, or NULL
static size_t program_len;
static int record_fd = -1; // takes what is compiled, or -1

static void use_program(const void *p, size_t n) { program = p; program_len = n; }
static void record_to(int fd) { record_fd = fd; }

int __wrap_seccomp_rule_add_array(void *ctx, uint32_t action, int syscall, unsigned int n, const void *args)
{
	if (program)
		return 0;
	return __real_seccomp_rule_add_array(ctx, action, syscall, n, args);
}

int __wrap_seccomp_export_bpf(const void *ctx, int fd)
{
	if (!program) {
		if (record_fd >= 0)
			__real_seccomp_export_bpf(ctx, record_fd); // what fails here is only not kept
		return __real_seccomp_export_bpf(ctx, fd);
	}
	for (size_t done = 0; done < program_len;) {
		ssize_t n = write(fd, program + done, program_len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += n;
	}
	return 0;
}
*/
import "C"

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// version is libseccomp's.
func version() string {
	v := C.seccomp_version()
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.micro)
}

// Adopt takes the file over in a process that libcontainer started, before
// libcontainer's own part. Without one, or with one that is no program, the
// profile is compiled.
func Adopt() {
	fd, ok := extraFile(os.Getenv)
	if !ok {
		return
	}
	// Not for the container. The descriptor stays open until then, so that
	// its number is not given to another file.
	unix.CloseOnExec(fd)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		C.record_to(C.int(fd))
		return
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(dup), "seccomp")
	defer f.Close()
	if program, err := read(f); err == nil && len(program) > 0 {
		// The copy lives until the program of the container is executed.
		C.use_program(C.CBytes(program), C.size_t(len(program)))
	}
}
