// Package safepath resolves untrusted paths inside a folder: what a container,
// an image layer, a build context or a tar file names can never reach outside.
// Users: copying into and out of containers, volume copy-up and import, bind
// subpaths, passwd look-ups.
//
// On Linux every look-up is one openat2(2) with RESOLVE_IN_ROOT and
// RESOLVE_NO_MAGICLINKS, so a path means what it would mean after chroot(2) to
// the folder: absolute symbolic links and ".." stay inside, also while someone
// renames folders at the same time. What is done with a resolved thing is done
// by file descriptor. Elsewhere (the command line on other systems) the package
// stands on os.Root, which refuses links that lead outside instead of
// containing them.
//
// The folder given to OpenRoot is trusted and resolved as usual. Names given to
// the methods are not trusted; a leading "/" means the folder itself. Opening
// can block on a FIFO and can open a device; callers that read what a container
// made pass O_NONBLOCK and look at the file's type.
package safepath
