// Package enginev1 holds the wire types of what the engine serves beyond
// Docker's API, under /cleat/v1 on the engine's socket. engine/dockerapi serves
// them; client and cli use them. Fields are only ever added.
//
//	GET  /cleat/v1/doctor                    what the machine offers; any JSON object
//	GET  /cleat/v1/volumes/{name}/export     a tar of the volume's content
//	POST /cleat/v1/volumes/{name}/import     a tar in the body, which may be compressed
//	                                         with gzip, bzip2 or zstd, replaces the content
//	POST /cleat/v1/volumes/{name}/clone      CloneVolume in the body; answers the new
//	                                         volume as GET /volumes/{name} does
//
// Errors are Error, with the status codes of Docker's API.
package enginev1

import "net/url"

// Prefix is where the endpoints are, on the engine's socket.
const Prefix = "/cleat/v1"

// The paths of the endpoints.
const DoctorPath = Prefix + "/doctor"

// ExportPath is the endpoint that exports a volume.
func ExportPath(volume string) string { return volumePath(volume, "export") }

// ImportPath is the endpoint that imports into a volume.
func ImportPath(volume string) string { return volumePath(volume, "import") }

// ClonePath is the endpoint that clones a volume.
func ClonePath(volume string) string { return volumePath(volume, "clone") }

func volumePath(volume, verb string) string {
	return Prefix + "/volumes/" + url.PathEscape(volume) + "/" + verb
}

// CloneVolume is the body of POST /cleat/v1/volumes/{name}/clone.
type CloneVolume struct {
	// Target is the name of the volume to make; it must not exist.
	Target string `json:"target"`
}

// Error is the body of an answer that is no success, as in Docker's API.
type Error struct {
	Message string `json:"message"`
	// Hint says what the user can do next; often empty.
	Hint string `json:"hint,omitempty"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }
