package platform

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/engine/dockerapi"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/engine/network"
	"github.com/cleatlabs/cleat/engine/runtime"
	"github.com/cleatlabs/cleat/engine/snapshot"
	"github.com/cleatlabs/cleat/engine/volume"
)

// Where a daemon lives unless told otherwise.
const (
	DefaultRoot   = "/var/lib/cleat"
	DefaultRun    = "/run/cleat"
	DefaultConfig = "/etc/cleat/cleatd.yaml"
)

// Config is the whole configuration of a daemon: one struct per component,
// each with its defaults and rules beside its implementation.
type Config struct {
	// Root keeps everything that survives a reboot, Run what does not.
	Root string `yaml:"root"`
	Run  string `yaml:"run"`

	Log LogConfig `yaml:"log"`

	API       APIConfig        `yaml:"api"`
	Snapshot  snapshot.Config  `yaml:"snapshot"`
	Network   network.Config   `yaml:"network"`
	Image     image.Config     `yaml:"image"`
	Runtime   runtime.Config   `yaml:"runtime"`
	Container container.Config `yaml:"container"`
	Volume    volume.Config    `yaml:"volume"`
}

// APIConfig is the Docker API: how it behaves and where it listens.
type APIConfig struct {
	Server dockerapi.Config       `yaml:"server"`
	Listen dockerapi.ListenConfig `yaml:"listen"`
}

// Validate fills defaults.
func (c *APIConfig) Validate() error { return errors.Join(c.Server.Validate(), c.Listen.Validate()) }

// LogConfig is the daemon's own log, on standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info (default), warn, error
	Format string `yaml:"format"` // text (default) or json
}

// Validate fills defaults.
func (c *LogConfig) Validate() error {
	if c.Level == "" {
		c.Level = "info"
	}
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err != nil {
		return fmt.Errorf("log.level: %q is none of debug, info, warn, error", c.Level)
	}
	switch c.Format {
	case "":
		c.Format = "text"
	case "text", "json":
	default:
		return fmt.Errorf("log.format: %q is neither text nor json", c.Format)
	}
	return nil
}

// Logger makes the logger that the configuration asks for. Validate comes first.
func (c *LogConfig) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// ReadConfig reads a YAML file over c; unknown keys are errors. A missing file
// is an error only when must is set.
func (c *Config) ReadConfig(path string, must bool) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !must {
		return nil
	}
	if err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Validate fills what depends on Root and Run, then lets every component fill
// its defaults and check itself.
func (c *Config) Validate() error {
	if c.Root == "" {
		c.Root = DefaultRoot
	}
	if c.Run == "" {
		c.Run = DefaultRun
	}
	for name, dir := range map[string]*string{"root": &c.Root, "run": &c.Run} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if abs == "/" {
			return fmt.Errorf("%s: must not be /", name)
		}
		*dir = abs
	}
	if c.Root == c.Run {
		return fmt.Errorf("root and run must be two folders, both are %s", c.Root)
	}
	c.place()
	var errs []error
	for name, part := range map[string]interface{ Validate() error }{
		"log": &c.Log, "api": &c.API, "snapshot": &c.Snapshot, "network": &c.Network, "image": &c.Image,
		"runtime": &c.Runtime, "container": &c.Container, "volume": &c.Volume,
	} {
		if err := part.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// instance tells daemons of one machine apart: "" for the default root.
func (c *Config) instance() string {
	if c.Root == DefaultRoot {
		return ""
	}
	sum := sha256.Sum256([]byte(c.Root))
	return hex.EncodeToString(sum[:4])
}
