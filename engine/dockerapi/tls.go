package dockerapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLSConfig names PEM files. All are read again when one changes, so that
// certificates can be renewed without a restart.
type TLSConfig struct {
	CA   string `yaml:"ca"`
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// certificates gives each handshake the configuration of the files as they
// are. Files that cannot be used, such as half-written ones, leave the last
// good configuration in place.
type certificates struct {
	files TLSConfig
	log   *slog.Logger

	mu     sync.Mutex
	stamps [3]stamp
	good   *tls.Config
}

// stamp tells versions of a file apart.
type stamp struct {
	modified time.Time
	size     int64
}

func newCertificates(files TLSConfig, log *slog.Logger) *certificates {
	return &certificates{files: files, log: log}
}

// config is a tls.Config's GetConfigForClient.
func (c *certificates) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.stat()
	if err == nil && c.good != nil && now == c.stamps {
		return c.good, nil
	}
	var loaded *tls.Config
	if err == nil {
		loaded, err = c.load()
	}
	switch {
	case err == nil:
		if c.good != nil {
			c.log.Info("certificates of the API read again", "cert", c.files.Cert)
		}
		c.good, c.stamps = loaded, now
	case c.good == nil:
		return nil, err
	default:
		c.log.Warn("certificates of the API not usable; the last ones stay", "error", err)
	}
	return c.good, nil
}

func (c *certificates) stat() (s [3]stamp, err error) {
	for i, path := range []string{c.files.CA, c.files.Cert, c.files.Key} {
		fi, err := os.Stat(path)
		if err != nil {
			return s, err
		}
		s[i] = stamp{fi.ModTime(), fi.Size()}
	}
	return s, nil
}

func (c *certificates) load() (*tls.Config, error) {
	pem, err := os.ReadFile(c.files.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", c.files.CA)
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		Certificates: []tls.Certificate{pair},
	}, nil
}
