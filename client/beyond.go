package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	moby "github.com/moby/moby/client"

	"github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

// beyondPrefix is where our daemon serves what the Docker API has no word for.
const beyondPrefix = "/cleat/v1"

// Doctor asks the daemon what its machine offers; the answer is its JSON.
func (e *Engine) Doctor(ctx context.Context) (json.RawMessage, error) {
	resp, err := e.beyond(ctx, http.MethodGet, "/doctor", nil, nil, "doctor")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	return io.ReadAll(resp.Body)
}

// VolumeExport streams a consistent tar of a volume. The caller closes it.
func (e *Engine) VolumeExport(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := e.beyond(ctx, http.MethodGet, "/volumes/"+url.PathEscape(name)+"/export", nil, nil, "volume export")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// VolumeImport fills a volume from a tar.
func (e *Engine) VolumeImport(ctx context.Context, name string, tar io.Reader) error {
	resp, err := e.beyond(ctx, http.MethodPost, "/volumes/"+url.PathEscape(name)+"/import", nil, tar, "volume import")
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// VolumeClone copies a volume to a new one.
func (e *Engine) VolumeClone(ctx context.Context, source, target string) (volume.Volume, error) {
	q := url.Values{"target": {target}}
	resp, err := e.beyond(ctx, http.MethodPost, "/volumes/"+url.PathEscape(source)+"/clone", q, nil, "volume clone")
	if err != nil {
		return volume.Volume{}, err
	}
	defer func() { _ = resp.Body.Close() }() // read only
	var v volume.Volume
	return v, json.NewDecoder(resp.Body).Decode(&v)
}

func (e *Engine) beyond(ctx context.Context, method, path string, q url.Values, body io.Reader, feature string) (*http.Response, error) {
	u := e.scheme + "://" + moby.DummyHost + e.prefix() + beyondPrefix + path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
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
