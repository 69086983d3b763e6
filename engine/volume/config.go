package volume

import (
	"errors"
	"path/filepath"
	"time"
)

// Config of the volume service.
type Config struct {
	// Root is the folder of the volumes, Run the one of what does not outlive
	// a reboot.
	Root string `yaml:"root"`
	Run  string `yaml:"run"`
	// PluginSockets are folders in which NAME.sock is a plugin.
	PluginSockets []string `yaml:"pluginSockets"`
	// PluginSpecs are folders in which NAME.spec or NAME.json says where a
	// plugin listens.
	PluginSpecs []string `yaml:"pluginSpecs"`
	// PluginTimeout bounds one request to a plugin.
	PluginTimeout time.Duration `yaml:"pluginTimeout"`
}

// Validate fills in defaults and refuses what cannot work.
func (c *Config) Validate() error {
	if !filepath.IsAbs(c.Root) || !filepath.IsAbs(c.Run) {
		return errors.New("volumes: root and run must be absolute paths")
	}
	if c.PluginSockets == nil {
		c.PluginSockets = []string{"/run/docker/plugins"}
	}
	if c.PluginSpecs == nil {
		c.PluginSpecs = []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}
	}
	if c.PluginTimeout == 0 {
		c.PluginTimeout = 2 * time.Minute
	}
	if c.PluginTimeout < 0 {
		return errors.New("volumes: pluginTimeout must be positive")
	}
	return nil
}
