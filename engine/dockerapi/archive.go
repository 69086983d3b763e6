package dockerapi

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/klauspost/compress/zstd"
	"github.com/moby/moby/api/types/container"

	econtainer "github.com/cleatlabs/cleat/engine/container"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

const pathStatHeader = "X-Docker-Container-Path-Stat"

// archivePath is the path parameter, which must not be empty.
func (c *call) archivePath() (string, error) {
	p := c.param("path")
	if p == "" {
		return "", errdefs.Invalidf("bad parameter: path cannot be empty")
	}
	return p, nil
}

func (c *call) setPathStat(st container.PathStat) error {
	data, err := json.Marshal(st)
	if err != nil {
		return errdefs.Internalf("encode path stat: %w", err)
	}
	c.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(data))
	return nil
}

func (s *Server) archiveStat(c *call) error {
	path, err := c.archivePath()
	if err != nil {
		return err
	}
	st, err := s.Containers.StatPath(c.ctx(), c.path("name"), path)
	if err != nil {
		return err
	}
	if err := c.setPathStat(st); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

func (s *Server) archiveGet(c *call) error {
	path, err := c.archivePath()
	if err != nil {
		return err
	}
	var statErr error
	err = s.Containers.CopyFrom(c.ctx(), c.path("name"), path, func(st container.PathStat) io.Writer {
		statErr = c.setPathStat(st)
		c.Header().Set("Content-Type", "application/x-tar")
		return c
	})
	if err == nil {
		err = statErr
	}
	return c.archive(err)
}

func (s *Server) archivePut(c *call) error {
	path, err := c.archivePath()
	if err != nil {
		return err
	}
	tar, err := decompress(c.r.Body)
	if err != nil {
		return err
	}
	defer tar.Close()
	o := econtainer.CopyOptions{NoOverwriteDirNonDir: c.flag("noOverwriteDirNonDir"), CopyUIDGID: c.flag("copyUIDGID")}
	if err := s.Containers.CopyTo(c.ctx(), c.path("name"), path, o, tar); err != nil {
		return err
	}
	return c.empty(http.StatusOK)
}

// decompress unwraps gzip, bzip2 and zstd, told by their first bytes.
func decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReader(r)
	head, err := br.Peek(4)
	if err != nil && err != io.EOF {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(br)
		return zr, errdefs.As(errdefs.ErrInvalidArgument, err)
	case bytes.HasPrefix(head, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(br)), nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		zr, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
		}
		return zr.IOReadCloser(), nil
	}
	return io.NopCloser(br), nil
}
