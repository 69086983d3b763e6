package shim

import (
	"encoding/json"

	"github.com/cleatlabs/cleat/engine/runtime/wire"
)

// sample has every object that a usual request has.
const sample = `{"spec":{"process":{"consoleSize":{},"user":{},"args":["a"],"env":["a"],"capabilities":{"bounding":["a"]},
"rlimits":[{}]},"root":{},"mounts":[{"options":["a"]}],"annotations":{"a":"a"},"linux":{"uidMappings":[{}],"sysctl":{"a":"a"},
"resources":{"devices":[{"major":1}],"memory":{"limit":1},"cpu":{"shares":1},"pids":{"limit":1},"blockIO":{"weight":1}},
"namespaces":[{}],"devices":[{}],"maskedPaths":["a"],"seccomp":{"architectures":["a"],"syscalls":[{"names":["a"],"args":[{}]}]}}},
"rootfs":[{"options":["a"]}],"log":{"options":{"a":"a"}}}`

// rehearse has the JSON package learn the types that a container's start
// takes through it, so that a spare shim has done so before it is needed.
func rehearse() {
	var req wire.Create
	// Only the learning matters.
	_ = json.Unmarshal([]byte(sample), &req)
	rehearseLibct()
}
