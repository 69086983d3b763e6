package container

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/atomicfile"
)

const (
	recordFile    = "record.json"
	recordVersion = 1
)

// record is what is durable about a container. Config, HostConfig, Endpoints
// and Mounts are never changed in place once stored: a change replaces them,
// so that readers may keep what they got.
type record struct {
	Version int       `json:"version"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`

	Image    digest.Digest       `json:"image"`
	ChainID  digest.Digest       `json:"chainID"`
	Manifest *ocispec.Descriptor `json:"manifest,omitempty"`
	Platform ocispec.Platform    `json:"platform"`

	Config     *container.Config     `json:"config"`
	HostConfig *container.HostConfig `json:"hostConfig"`
	// Endpoints are what the user asked for; Live is what the network made of
	// it while the container runs, Ports what is published.
	Endpoints map[string]*network.EndpointSettings `json:"endpoints,omitempty"`
	Live      map[string]*network.EndpointSettings `json:"live,omitempty"`
	Ports     network.PortMap                      `json:"ports,omitempty"`
	Mounts    []mountPoint                         `json:"mounts,omitempty"`

	State        state     `json:"state"`
	ExitCode     int       `json:"exitCode"`
	Error        string    `json:"error,omitempty"`
	OOMKilled    bool      `json:"oomKilled,omitempty"`
	StartedAt    time.Time `json:"startedAt,omitzero"`
	FinishedAt   time.Time `json:"finishedAt,omitzero"`
	RestartCount int       `json:"restartCount,omitempty"`
	// Failures counts the starts that the policy has done in a row.
	Failures int `json:"failures,omitempty"`
	// ManuallyStopped keeps "unless-stopped" from starting it with the daemon.
	ManuallyStopped bool `json:"manuallyStopped,omitempty"`
	// Health is the last known status while the container runs.
	Health        container.HealthStatus `json:"health,omitempty"`
	FailingStreak int                    `json:"failingStreak,omitempty"`
	// Touched says that the writable layer may differ from the image.
	Touched bool `json:"touched,omitempty"`
}

// durability of a record write.
type durability uint8

const (
	// durable survives power loss: what was acknowledged to a user.
	durable durability = iota
	// volatile survives the death of the daemon, not that of the machine:
	// statements about what runs, which a power loss ends anyway.
	volatile
	// inMemory is not written: the death of the daemon brings back what the
	// record said before, from which Restore gets to the same end.
	inMemory
)

// wanted is how durable a write must be. Nothing about an auto-remove container
// outlives the machine: when it comes back the container has ended, and what
// is left of it is removed with or without a record.
func (r *record) wanted(d durability) durability {
	if r.HostConfig.AutoRemove {
		return max(d, volatile)
	}
	return d
}

func writeRecord(dir string, r *record, d durability) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of container %s: %w", r.ID, err)
	}
	return writeRecordBytes(dir, data, r.wanted(d))
}

func writeRecordBytes(dir string, data []byte, d durability) error {
	path := filepath.Join(dir, recordFile)
	if d == volatile {
		return atomicfile.WriteVolatile(path, data, 0o600)
	}
	return atomicfile.WriteFile(path, data, 0o600)
}

func readRecord(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("record %s: %w", dir, err)
	}
	if r.Version != recordVersion || r.ID != filepath.Base(dir) || r.Config == nil || r.HostConfig == nil {
		return nil, fmt.Errorf("record %s: version %d of container %q is not readable", dir, r.Version, r.ID)
	}
	return &r, nil
}
