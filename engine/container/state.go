package container

import (
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/errdefs"
)

type state = container.ContainerState

// verb is what is done to a container, or what happens to it.
type verb uint8

const (
	verbStart       verb = iota // it is let run: by a user or by its restart policy
	verbStop                    // it is asked to end
	verbKill                    // it gets a signal
	verbPause                   // its processes are frozen
	verbUnpause                 // and go on
	verbExec                    // a process is added
	verbAttach                  // somebody connects to its streams
	verbUse                     // its file system or settings are worked on
	verbExit                    // its init ended, and that is that
	verbBackOff                 // its init ended and will be started again
	verbRemove                  // it is removed
	verbForceRemove             // it is removed whatever it does
	verbRemoveFails             // its removal did not succeed
)

// transitions is the state machine: the state that follows a verb. What is not
// listed is refused.
//
//	created ─▶ running ⇄ paused          created/exited/dead ─▶ removing ─▶ (gone)
//	exited ─▶ running ─▶ exited | restarting ─▶ running | exited
func transitions(s state) map[verb]state {
	switch s {
	case container.StateCreated:
		return map[verb]state{
			verbStart: container.StateRunning, verbAttach: s, verbUse: s,
			verbRemove: container.StateRemoving, verbForceRemove: container.StateRemoving,
		}
	case container.StateRunning:
		return map[verb]state{
			verbStop: s, verbKill: s, verbExec: s, verbAttach: s, verbUse: s,
			verbPause: container.StatePaused, verbExit: container.StateExited, verbBackOff: container.StateRestarting,
			verbForceRemove: container.StateRemoving,
		}
	case container.StatePaused:
		return map[verb]state{
			verbStop: s, verbKill: s, verbUse: s,
			verbUnpause: container.StateRunning, verbExit: container.StateExited, verbBackOff: container.StateRestarting,
			verbForceRemove: container.StateRemoving,
		}
	case container.StateRestarting:
		return map[verb]state{
			verbStop: s, verbKill: s, verbUse: s,
			verbStart: container.StateRunning, verbExit: container.StateExited,
			verbForceRemove: container.StateRemoving,
		}
	case container.StateExited:
		return map[verb]state{
			verbStart: container.StateRunning, verbAttach: s, verbUse: s,
			verbRemove: container.StateRemoving, verbForceRemove: container.StateRemoving,
		}
	case container.StateDead:
		return map[verb]state{
			verbRemove: container.StateRemoving, verbForceRemove: container.StateRemoving,
		}
	case container.StateRemoving:
		return map[verb]state{verbRemoveFails: container.StateDead}
	}
	return nil
}

// next is the state that follows, or why the verb is refused, in Docker's words.
func next(s state, v verb, id, name string) (state, error) {
	if to, ok := transitions(s)[v]; ok {
		return to, nil
	}
	return s, refusal(s, v, id, name)
}

func refusal(s state, v verb, id, name string) error {
	switch v {
	case verbStart:
		return refuseStart(s)
	case verbStop:
		return errdefs.NotModifiedf("container is already stopped")
	case verbKill:
		return errdefs.Conflictf("container %s is not running", id)
	case verbRemove, verbForceRemove:
		return refuseRemove(s, name)
	case verbUnpause:
		return errdefs.Conflictf("container %s is not paused", id)
	case verbPause, verbExec, verbAttach:
		return refuseUse(s, v, id)
	default:
		return errdefs.Conflictf("container %s is %s", id, s)
	}
}

func refuseStart(s state) error {
	switch s {
	case container.StatePaused:
		return errdefs.Conflictf("cannot start a paused container, try unpause instead")
	case container.StateRunning:
		return errdefs.NotModifiedf("container is already running")
	default:
		return errdefs.Conflictf("container is marked for removal and cannot be started")
	}
}

func refuseRemove(s state, name string) error {
	switch s {
	case container.StateRemoving:
		return errdefs.Conflictf("removal of container %s is already in progress", name)
	case container.StatePaused:
		return errdefs.Conflictf("cannot remove container %q: container is paused and must be unpaused first", "/"+name)
	default:
		return errdefs.Conflictf("cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+name, s)
	}
}

func refuseUse(s state, v verb, id string) error {
	doing := map[verb]string{verbExec: "exec", verbAttach: "attach"}[v]
	switch {
	case s == container.StateRestarting:
		return errdefs.Conflictf("container %s is restarting, wait until the container is running", id)
	case s == container.StatePaused && v == verbPause:
		return errdefs.Conflictf("container %s is already paused", id)
	case s == container.StatePaused:
		return errdefs.Conflictf("container %s is paused, unpause the container before %s", id, doing)
	default:
		return errdefs.Conflictf("container %s is not running", id)
	}
}

// live says whether a container in state s has a task.
func live(s state) bool {
	return s == container.StateRunning || s == container.StatePaused
}

// active says whether Docker calls a container in state s running: one that
// waits for its restart counts.
func active(s state) bool { return live(s) || s == container.StateRestarting }
