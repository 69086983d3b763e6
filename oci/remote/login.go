package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

const clientID = "cleat"

// maxTags bounds what a registry's list of tags may hold.
const maxTags = 100_000

// Login checks credentials against a registry and returns the identity token
// that it gave out, if it is of that kind. server is a host or a URL, as
// `docker login` sends it; "" is Docker Hub.
func (c *Client) Login(ctx context.Context, server string, cred Credentials) (identityToken string, err error) {
	host, err := serverHost(server)
	if err != nil {
		return "", err
	}
	client, err := c.httpClient(host)
	if err != nil {
		return "", err
	}
	base := "https://" + host + "/v2/"
	resp, err := c.get(ctx, client, base, func(*http.Request) {})
	if err != nil {
		return "", Classify(err, host)
	}
	if resp.StatusCode != http.StatusUnauthorized {
		return "", statusError(resp, base) // a registry that asks nothing of anybody
	}
	for _, ch := range auth.ParseAuthHeader(resp.Header) {
		switch ch.Scheme {
		case auth.BasicAuth:
			resp, err := c.get(ctx, client, base, func(r *http.Request) { r.SetBasicAuth(cred.Username, cred.Password) })
			if err != nil {
				return "", Classify(err, host)
			}
			return "", statusError(resp, base)
		case auth.BearerAuth:
			return c.bearerLogin(ctx, client, host, base, ch, cred)
		}
	}
	return "", errdefs.Unavailablef("registry %s offers neither basic nor token authentication", host)
}

func (c *Client) bearerLogin(ctx context.Context, client *http.Client, host, base string, ch auth.Challenge, cred Credentials) (string, error) {
	user, secret := cred.Username, cred.Password
	if cred.IdentityToken != "" {
		user, secret = "", cred.IdentityToken
	}
	to, err := auth.GenerateTokenOptions(ctx, host, user, secret, ch)
	if err != nil {
		return "", errdefs.Unavailablef("registry %s: %w", host, err)
	}
	to.FetchRefreshToken = true
	token, refresh := "", ""
	header := http.Header{"User-Agent": {c.agent}}
	o, err := auth.FetchTokenWithOAuth(ctx, client, header, clientID, to)
	var status remoteserrors.ErrUnexpectedStatus
	switch {
	case err == nil:
		token, refresh = o.AccessToken, o.RefreshToken
	case errors.As(err, &status) && cred.IdentityToken == "":
		// Many token servers know only GET.
		g, err := auth.FetchToken(ctx, client, header, to)
		if err != nil {
			return "", loginError(err, base)
		}
		token, refresh = g.Token, g.RefreshToken
	default:
		return "", loginError(err, base)
	}
	resp, err := c.get(ctx, client, base, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) })
	if err != nil {
		return "", Classify(err, host)
	}
	return refresh, statusError(resp, base)
}

func loginError(err error, base string) error {
	var status remoteserrors.ErrUnexpectedStatus
	if errors.As(err, &status) && status.StatusCode < http.StatusInternalServerError {
		return errdefs.Unauthenticatedf("Get %q: unauthorized: incorrect username or password", base)
	}
	return Classify(err, base)
}

func statusError(resp *http.Response, base string) error {
	switch {
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return errdefs.Unauthenticatedf("Get %q: unauthorized: incorrect username or password", base)
	}
	return errdefs.As(classOf(resp.StatusCode), fmt.Errorf("Get %q: unexpected status %s", base, resp.Status))
}

// get sends a request and discards the body.
func (c *Client) get(ctx context.Context, client *http.Client, u string, edit func(*http.Request)) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.agent)
	edit(req)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return nil, err
	}
	return resp, nil
}

func serverHost(server string) (string, error) {
	if server == "" {
		return dockerHubHost, nil
	}
	if strings.Contains(server, "://") {
		u, err := url.Parse(server)
		if err != nil {
			return "", errdefs.Invalidf("invalid registry address %q: %w", server, err)
		}
		server = u.Host
	}
	host, _, _ := strings.Cut(server, "/")
	if host == "" {
		return "", errdefs.Invalidf("invalid registry address %q", server)
	}
	return hostOf(host), nil
}

// Tags lists the tags of a repository, following pages.
func (s *Session) Tags(ctx context.Context, registry, repository string) ([]string, error) {
	hosts, err := s.hosts(registry)
	if err != nil {
		return nil, err
	}
	h := hosts[len(hosts)-1] // the registry itself
	next := &url.URL{Scheme: h.Scheme, Host: h.Host, Path: h.Path + "/" + repository + "/tags/list"}
	var tags []string
	for next != nil && len(tags) < maxTags {
		var page struct{ Tags []string }
		var err error
		next, err = getJSON(ctx, h.Client, h.Authorizer, h.Header, next, &page)
		if err != nil {
			return nil, err
		}
		tags = append(tags, page.Tags...)
	}
	return tags, nil
}

type authorizer interface {
	Authorize(context.Context, *http.Request) error
	AddResponses(context.Context, []*http.Response) error
}

// getJSON asks once, and once more after a challenge; it returns the URL of the
// next page, if there is one.
func getJSON(ctx context.Context, client *http.Client, a authorizer, header http.Header, u *url.URL, v any) (*url.URL, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		for k, vs := range header {
			req.Header[k] = vs
		}
		if a != nil {
			if err := a.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusUnauthorized && a != nil && try == 0 {
			err := a.AddResponses(ctx, []*http.Response{resp})
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				return nil, err
			}
			continue
		}
		return readPage(resp, u, v)
	}
}

func readPage(resp *http.Response, u *url.URL, v any) (*url.URL, error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errdefs.As(classOf(resp.StatusCode), fmt.Errorf("Get %q: unexpected status %s", u, resp.Status))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 32<<20)).Decode(v); err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}
	link := resp.Header.Get("Link") // </v2/NAME/tags/list?last=x&n=y>; rel="next"
	from, to := strings.Index(link, "<"), strings.Index(link, ">")
	if from < 0 || to < from || !strings.Contains(link[to:], "next") {
		return nil, nil
	}
	next, err := u.Parse(link[from+1 : to])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", u, err)
	}
	if next.Host != u.Host {
		return nil, errdefs.Invalidf("registry %s sends to another host for the next page of tags", u.Host)
	}
	return next, nil
}
