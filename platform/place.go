package platform

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cleatlabs/cleat/engine/container"
)

// place gives every component its part of root and run, and names that keep
// daemons on one machine apart. Settings of the user's are left alone.
func (c *Config) place() {
	inst := c.instance()
	set := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	c.Snapshot.Root = filepath.Join(c.Root, "snapshots")
	set(&c.Snapshot.Driver, "auto")
	c.Container.Root = filepath.Join(c.Root, "containers")
	c.Volume.Root = filepath.Join(c.Root, "volumes")
	c.Volume.Run = filepath.Join(c.Run, "volumes")
	c.Network.Root = filepath.Join(c.Root, "network")
	c.Network.Run = filepath.Join(c.Run, "netns")
	c.Runtime.Run = filepath.Join(c.Run, "containers")
	set(&c.Runtime.ShimPath, besideUs("cleat-shim"))
	set(&c.Container.InitPath, filepath.Join(c.Root, "bin", initName))

	parent := "/cleat"
	if inst != "" {
		parent += "-" + inst
		set(&c.Network.Bridge, "cl"+inst)
		set(&c.Network.Table, "cleat-"+inst)
	}
	set(&c.Container.CgroupParent, parent)
	c.Runtime.CgroupParent = c.Container.CgroupParent
	c.findRuntimes()
	set(&c.API.Listen.Socket, filepath.Join(c.Run, "engine.sock"))
}

// findRuntimes makes the well-known OCI runtimes that are installed usable by
// their names, as Docker's packages do; the configuration wins.
func (c *Config) findRuntimes() {
	for _, name := range []string{"crun", "youki", "runsc", "kata-runtime"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if _, ok := c.Container.Runtimes[name]; ok {
			continue
		}
		if c.Container.Runtimes == nil {
			c.Container.Runtimes = map[string]container.RuntimeProgram{}
		}
		c.Container.Runtimes[name] = container.RuntimeProgram{Path: path}
	}
}

// besideUs is the path of a program in the folder of this one.
func besideUs(name string) string {
	exe, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(exe), name)
}
