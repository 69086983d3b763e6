package dockerapi

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/engine/image"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

const mediaTar = "application/x-tar"

// repoTag joins the parameters repo and tag into a tagged reference; without a
// tag it is "latest".
func repoTag(repo, tag string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, errdefs.Invalidf("cannot import digest reference")
	}
	if tag != "" {
		tagged, err := reference.WithTag(named, tag)
		return tagged, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, errdefs.Invalidf("unexpected reference: %q", named)
	}
	return tagged, nil
}

// pullRef joins the parameters fromImage and tag, which may be a digest. all
// says that every tag is meant.
func pullRef(name, tag string) (ref string, all bool, err error) {
	// "pull -a" of some clients leaves a colon.
	named, err := reference.ParseNormalizedNamed(strings.TrimSuffix(name, ":"))
	if err != nil {
		return "", false, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	if tag != "" {
		if d, derr := digest.Parse(tag); derr == nil {
			named, err = reference.WithDigest(reference.TrimNamed(named), d)
		} else {
			named, err = reference.WithTag(named, tag)
		}
		if err != nil {
			return "", false, errdefs.As(errdefs.ErrInvalidArgument, err)
		}
	}
	if familiar := reference.FamiliarName(named); familiar == "scratch" {
		return "", false, errdefs.Forbiddenf("'%s' is a reserved name", familiar)
	}
	return reference.FamiliarString(named), reference.IsNameOnly(named), nil
}

func (s *Server) imageCreate(c *call) error {
	var platform *ocispec.Platform
	if p := c.param("platform"); p != "" && c.v >= 32 {
		var err error
		if platform, err = platformString(p); err != nil {
			return err
		}
	}
	out := newJSONStream(c, "application/json")
	if name := c.param("fromImage"); name != "" {
		ref, all, err := pullRef(name, c.param("tag"))
		if err != nil {
			return err
		}
		return out.finish(s.Images.Pull(c.ctx(), image.PullOptions{
			Ref: ref, AllTags: all, Platform: platform, Auth: s.registryAuth(c), Progress: out.progress,
		}))
	}
	id, err := s.importImage(c, platform, out)
	if err == nil {
		out.progress(jsonstream.Message{Status: id})
	}
	return out.finish(err)
}

func (s *Server) importImage(c *call, platform *ocispec.Platform, out *jsonStream) (id string, err error) {
	src := c.param("fromSrc")
	o := image.ImportOptions{
		Message: c.param("message"), Changes: c.params()["changes"], Platform: platform, Progress: out.progress,
	}
	if repo := c.param("repo"); repo != "" {
		ref, err := repoTag(repo, c.param("tag"))
		if err != nil {
			return "", err
		}
		o.Ref = reference.FamiliarString(ref)
	}
	if o.Message == "" {
		o.Message = "Imported from " + src
	}
	if src == "-" {
		return s.Images.Import(c.ctx(), c.r.Body, o)
	}
	body, err := s.download(c, src, out)
	if err != nil {
		return "", err
	}
	defer body.Close()
	return s.Images.Import(c.ctx(), body, o)
}

// download opens the archive that POST /images/create?fromSrc=URL names.
func (s *Server) download(c *call, src string, out *jsonStream) (io.ReadCloser, error) {
	if !strings.Contains(src, "://") {
		src = "http://" + src
	}
	u, err := url.Parse(src)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errdefs.Invalidf("invalid source %q: must be - or an http or https URL", src)
	}
	req, err := http.NewRequestWithContext(c.ctx(), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, errdefs.Unavailablef("download %s: %w", u.Redacted(), err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // its status is the error
		return nil, errdefs.NotFoundf("download %s: server answered %s", u.Redacted(), resp.Status)
	}
	out.progress(jsonstream.Message{Status: "Downloading from " + u.Redacted()})
	return resp.Body, nil
}

func (s *Server) imagePush(c *call) error {
	name, tag := c.path("name"), c.param("tag")
	var ref reference.Named
	var err error
	if tag != "" {
		ref, err = repoTag(name, tag)
	} else {
		ref, err = reference.ParseNormalizedNamed(name)
		err = errdefs.As(errdefs.ErrInvalidArgument, err)
	}
	if err != nil {
		return err
	}
	platform, err := c.platform(46)
	if err != nil {
		return err
	}
	out := newJSONStream(c, "application/json")
	return out.finish(s.Images.Push(c.ctx(), image.PushOptions{
		Ref: reference.FamiliarString(ref), AllTags: reference.IsNameOnly(ref),
		Platform: platform, Auth: s.registryAuth(c), Progress: out.progress,
	}))
}

func (s *Server) imageSave(c *call) error { return s.save(c, []string{c.path("name")}) }

func (s *Server) imageSaveMany(c *call) error { return s.save(c, c.params()["names"]) }

func (s *Server) save(c *call, refs []string) error {
	platforms, err := c.platforms("platform", 48, 52)
	if err != nil {
		return err
	}
	c.Header().Set("Content-Type", mediaTar)
	return c.archive(s.Images.Save(c.ctx(), refs, platforms, c))
}

func (s *Server) imageLoad(c *call) error {
	platforms, err := c.platforms("platform", 48, 52)
	if err != nil {
		return err
	}
	out := newJSONStream(c, "application/json")
	progress := image.Progress(out.progress)
	if c.flagOr("quiet", true) {
		progress = func(m jsonstream.Message) {
			if m.Progress == nil && m.Status == "" {
				out.progress(m)
			}
		}
	}
	return out.finish(s.Images.Load(c.ctx(), c.r.Body, platforms, progress))
}

func (s *Server) imageList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	if old := c.param("filter"); old != "" && c.v < 41 && !f.Has("reference") {
		if f == nil {
			f = make(filter.Args)
		}
		f["reference"] = []string{old}
	}
	all, err := s.Images.List(c.ctx(), image.ListOptions{
		All: c.flag("all"), Filters: f,
		SharedSize: c.v >= 42 && c.flag("shared-size"),
		Manifests:  c.v >= 47 && c.flag("manifests"),
	})
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, imagesFor(c.v, all))
}

func (s *Server) imageInspect(c *call) error {
	platform, err := c.platform(49)
	if err != nil {
		return err
	}
	manifests := c.v >= 48 && c.flag("manifests")
	if manifests && platform != nil {
		return errdefs.Invalidf("conflicting options: manifests and platform options cannot both be set")
	}
	img, err := s.Images.Inspect(c.ctx(), c.path("name"), platform, manifests)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, imageInspectFor(c.v, img))
}

func (s *Server) imageHistory(c *call) error {
	platform, err := c.platform(48)
	if err != nil {
		return err
	}
	h, err := s.Images.History(c.ctx(), c.path("name"), platform)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, list(h))
}

func (s *Server) imageTag(c *call) error {
	ref, err := repoTag(c.param("repo"), c.param("tag"))
	if err != nil {
		return err
	}
	if reference.FamiliarName(ref) == string(digest.Canonical) {
		return errdefs.Invalidf("refusing to create an ambiguous tag using digest algorithm as name")
	}
	if err := s.Images.Tag(c.lasting(), c.path("name"), reference.FamiliarString(ref)); err != nil {
		return err
	}
	return c.empty(http.StatusCreated)
}

func (s *Server) imageRemove(c *call) error {
	platforms, err := c.platforms("platforms", 50, 50)
	if err != nil {
		return err
	}
	removed, err := s.Images.Remove(c.lasting(), c.path("name"), image.RemoveOptions{
		Force: c.flag("force"), NoPrune: c.flag("noprune"), Platforms: platforms,
	})
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, list(removed))
}

func (s *Server) imagePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Images.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}

func (s *Server) distribution(c *call) error {
	d, err := s.Images.Distribution(c.ctx(), c.path("name"), s.registryAuth(c))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, d)
}
