package dockerapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Config of a Server.
type Config struct {
	// ServerVersion is the engine's, for the Server header.
	ServerVersion string `yaml:"-"`
	// MinAPIVersion is the oldest API version served; "" is 1.24.
	MinAPIVersion string `yaml:"minAPIVersion"`
	// Experimental is reported to clients, which then show more options.
	Experimental bool `yaml:"experimental"`
	// BuilderVersion tells clients which builder to use: "2" (BuildKit) or "1".
	BuilderVersion string `yaml:"builderVersion"`
	// MaxBody limits JSON bodies, in bytes; 0 is 8 MiB. Archives are not limited.
	MaxBody int64 `yaml:"maxBody"`
	// Linger is how long a finished attach or exec waits for its client to
	// hang up before the connection is cut; 0 is 10 s.
	Linger time.Duration `yaml:"linger"`
}

const defaultMaxBody = 8 << 20

// Validate fills defaults and refuses what cannot be served.
func (c *Config) Validate() error {
	if c.ServerVersion == "" {
		c.ServerVersion = "dev"
	}
	if c.MinAPIVersion == "" {
		c.MinAPIVersion = MinAPIVersion
	}
	v, ok := parseVersion(c.MinAPIVersion)
	if !ok || v < oldestVersion || v > newestVersion {
		return fmt.Errorf("minAPIVersion %q: must be between %s and %s", c.MinAPIVersion, MinAPIVersion, MaxAPIVersion)
	}
	switch c.BuilderVersion {
	case "":
		c.BuilderVersion = "2"
	case "1", "2":
	default:
		return fmt.Errorf("builderVersion %q: must be 1 or 2", c.BuilderVersion)
	}
	if c.MaxBody < 0 || c.Linger < 0 {
		return fmt.Errorf("maxBody and linger must not be negative")
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.Linger == 0 {
		c.Linger = 10 * time.Second
	}
	return nil
}

// Backends are what a Server serves. All are required.
type Backends struct {
	Containers Containers
	Images     Images
	Networks   Networks
	Volumes    Volumes
	System     System
	Events     Events
}

// Server answers API requests. It starts nothing and is safe for concurrent use.
type Server struct {
	Backends
	cfg    Config
	oldest version
	log    *slog.Logger
	mux    *http.ServeMux
	now    func() time.Time
	// The values of the headers that every answer has.
	server, apiVersion, osType, experimental []string
}

// New returns a server; cfg is validated.
func New(cfg Config, b Backends, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("docker API: %w", err)
	}
	if b.Containers == nil || b.Images == nil || b.Networks == nil || b.Volumes == nil || b.System == nil || b.Events == nil {
		return nil, errdefs.Internalf("docker API: a backend is missing")
	}
	s := &Server{
		Backends: b, cfg: cfg, log: log, mux: http.NewServeMux(), now: time.Now,
		server:       []string{fmt.Sprintf("Docker/%s (%s)", cfg.ServerVersion, runtime.GOOS)},
		apiVersion:   []string{MaxAPIVersion},
		osType:       []string{runtime.GOOS},
		experimental: []string{fmt.Sprint(cfg.Experimental)},
	}
	s.oldest, _ = parseVersion(cfg.MinAPIVersion) // Validate has parsed it
	s.register()
	return s, nil
}

// Handler is the server's entry point.
func (s *Server) Handler() http.Handler { return s }
