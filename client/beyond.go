package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/api/enginev1"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// Doctor asks the daemon what its machine offers; the answer is its JSON.
func (e *Engine) Doctor(ctx context.Context) (json.RawMessage, error) {
	resp, err := e.beyond(ctx, http.MethodGet, enginev1.DoctorPath, nil, "", "doctor")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	return io.ReadAll(resp.Body)
}

// VolumeExport streams a consistent tar of a volume. The caller closes it.
func (e *Engine) VolumeExport(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := e.beyond(ctx, http.MethodGet, enginev1.ExportPath(name), nil, "", "volume export")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// VolumeImport fills a volume from a tar.
func (e *Engine) VolumeImport(ctx context.Context, name string, tar io.Reader) error {
	resp, err := e.beyond(ctx, http.MethodPost, enginev1.ImportPath(name), tar, "application/x-tar", "volume import")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// VolumeClone copies a volume to a new one.
func (e *Engine) VolumeClone(ctx context.Context, source, target string) (volume.Volume, error) {
	body, err := json.Marshal(enginev1.CloneVolume{Target: target})
	if err != nil {
		return volume.Volume{}, err
	}
	resp, err := e.beyond(ctx, http.MethodPost, enginev1.ClonePath(source), bytes.NewReader(body), "application/json", "volume clone")
	if err != nil {
		return volume.Volume{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	var v volume.Volume
	return v, json.NewDecoder(resp.Body).Decode(&v)
}

func (e *Engine) beyond(ctx context.Context, method, path string, body io.Reader, mediaType, feature string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, e.scheme+"://"+e.urlHost()+e.prefix()+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("error during connect: %w", err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // errorOf reads it
	err = e.errorOf(resp)
	if (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusNotImplemented) && isUnknownRoute(err) {
		return nil, errdefs.NotImplementedf("the daemon at %s does not offer `%s`: only cleatd does", e.ep.Host, feature)
	}
	return nil, err
}

// isUnknownRoute tells "no such endpoint" from "no such volume".
func isUnknownRoute(err error) bool {
	m := strings.ToLower(err.Error())
	return strings.Contains(m, "page not found") || strings.Contains(m, "no such endpoint") || strings.Contains(m, "not implemented")
}
