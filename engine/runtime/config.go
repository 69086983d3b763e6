package runtime

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Config of a Driver.
type Config struct {
	// Run is the folder of the containers' run folders; the driver owns it.
	Run string `yaml:"run"`
	// ShimPath is the program cleat-shim.
	ShimPath string `yaml:"shimPath"`
	// CgroupParent is where containers that name no cgroup are put. Default "/cleat".
	CgroupParent string `yaml:"cgroupParent"`
	// Spares is how many shims are started ahead of need, 0 to 4. A spare
	// takes some milliseconds off a start and costs a shim's memory. Default 1;
	// -1 for none.
	Spares int `yaml:"spares"`
	// StallTimeout is how long an attached client may accept nothing, while
	// the container waits for it, before it is cut off. Default 1 minute.
	StallTimeout time.Duration `yaml:"stallTimeout"`
}

// Validate fills defaults and refuses what cannot work.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Run) || !filepath.IsAbs(c.ShimPath) {
		return errors.New("run and shimPath must be absolute paths")
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/cleat"
	}
	if strings.Contains(c.CgroupParent, "..") {
		return fmt.Errorf("cgroupParent %q must not contain \"..\"", c.CgroupParent)
	}
	if c.Spares == 0 {
		c.Spares = 1
	}
	if c.Spares < -1 || c.Spares > 4 {
		return fmt.Errorf("spares: %d is not between -1 and 4", c.Spares)
	}
	if c.StallTimeout < 0 {
		return errors.New("stallTimeout must not be negative")
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = time.Minute
	}
	return nil
}
