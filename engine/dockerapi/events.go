package dockerapi

import (
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types"
	apievents "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/engine/filter"
	"github.com/cleatlabs/cleat/internal/errdefs"
)

// event151 has the fields of API 1.21, sent until 1.51.
type event151 struct {
	Status apievents.Action `json:"status,omitempty"`
	ID     string           `json:"id,omitempty"`
	From   string           `json:"from,omitempty"`
	apievents.Message
}

func eventFor(v version, m apievents.Message) any {
	if v >= 52 {
		return m
	}
	old := event151{Message: m}
	switch m.Type {
	case apievents.ContainerEventType:
		old.Status, old.ID, old.From = m.Action, m.Actor.ID, m.Actor.Attributes["image"]
	case apievents.ImageEventType:
		old.Status, old.ID = m.Action, m.Actor.ID
	}
	return old
}

// eventMedia picks the media type of the stream by the Accept header.
func eventMedia(v version, accept string) string {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch media = strings.ToLower(strings.TrimSpace(media)); media {
		case types.MediaTypeJSONLines, types.MediaTypeNDJSON, types.MediaTypeJSONSequence:
			return media
		}
	}
	if v < 52 {
		return types.MediaTypeJSON
	}
	return types.MediaTypeJSONLines
}

func (s *Server) events(c *call) error {
	since, err := s.moment(c, "since")
	if err != nil {
		return err
	}
	until, err := s.moment(c, "until")
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return errdefs.Invalidf("`since` time (%s) cannot be after `until` time (%s)", c.param("since"), c.param("until"))
	}
	f, err := c.filters()
	if err != nil {
		return err
	}
	out := newJSONStream(c, eventMedia(c.v, c.r.Header.Get("Accept")))
	out.seq = out.media == types.MediaTypeJSONSequence

	past, sub := s.Events.Subscribe(since)
	defer sub.Close()
	if err := out.open(); err != nil {
		return nil // the client is gone
	}
	wanted := func(m apievents.Message) bool {
		if c.v < 46 && m.Type == apievents.ImageEventType && m.Action == apievents.ActionCreate {
			return false
		}
		return (until.IsZero() || m.TimeNano <= until.UnixNano()) && matchEvent(f, m)
	}
	for _, m := range past {
		if wanted(m) && out.send(eventFor(c.v, m)) != nil {
			return nil // the client is gone
		}
	}
	var timeout <-chan time.Time
	if !until.IsZero() {
		left := until.Sub(s.now())
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		select {
		case m, ok := <-sub.C:
			if !ok {
				s.log.Warn("event stream ended", "error", sub.Err())
				return nil
			}
			if wanted(m) && out.send(eventFor(c.v, m)) != nil {
				return nil // the client is gone
			}
		case <-timeout:
			return nil
		case <-c.ctx().Done():
			return nil
		}
	}
}

// namedEvents are the types whose name is a filter key too.
var namedEvents = [...]apievents.Type{
	apievents.ContainerEventType, apievents.DaemonEventType, apievents.PluginEventType,
	apievents.VolumeEventType, apievents.NetworkEventType, apievents.NodeEventType,
	apievents.ServiceEventType, apievents.SecretEventType, apievents.ConfigEventType,
}

// matchEvent says whether f lets m through.
func matchEvent(f filter.Args, m apievents.Message) bool {
	if len(f) == 0 {
		return true
	}
	if !matchAction(f, string(m.Action)) || !f.Exact("type", string(m.Type)) || !f.Exact("scope", m.Scope) {
		return false
	}
	for _, t := range namedEvents {
		key := string(t)
		if !f.Has(key) {
			continue
		}
		if !f.Prefix(key, m.Actor.ID) && !f.Prefix(key, m.Actor.Attributes["name"]) {
			return false
		}
	}
	return matchImage(f, m) && f.Labels("label", m.Actor.Attributes)
}

// matchAction takes "exec_start" for "exec_start: sh" too.
func matchAction(f filter.Args, action string) bool {
	if slices.ContainsFunc(f["event"], func(v string) bool {
		return v == "health_status" || v == "exec_create" || v == "exec_start"
	}) {
		return f.Prefix("event", action)
	}
	return f.Exact("event", action)
}

// matchImage compares the image of image and container events, with and
// without its tag.
func matchImage(f filter.Args, m apievents.Message) bool {
	if !f.Has("image") {
		return true
	}
	name := m.Actor.Attributes["image"]
	if m.Type == apievents.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return f.Exact("image", m.Actor.ID) || f.Exact("image", name) ||
		f.Exact("image", withoutTag(m.Actor.ID)) || f.Exact("image", withoutTag(name))
}

func withoutTag(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return reference.FamiliarName(ref)
}
