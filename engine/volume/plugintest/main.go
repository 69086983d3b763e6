// Command plugintest is a small volume plugin that speaks Docker's protocol on
// a Unix socket. Volumes are folders; mounting one is a bind mount, so that
// leaks show. The tests of engine/volume run it.
//
//	plugintest SOCKET FOLDER
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

type request struct {
	Name, ID string
	Opts     map[string]string
}

type vol struct {
	Name       string
	Mountpoint string
	CreatedAt  string         `json:",omitempty"`
	Status     map[string]any `json:",omitempty"`
}

type answer struct {
	Err          string            `json:",omitempty"`
	Mountpoint   string            `json:",omitempty"`
	Volume       *vol              `json:",omitempty"`
	Volumes      []vol             `json:",omitempty"`
	Capabilities map[string]string `json:",omitempty"`
	Implements   []string          `json:",omitempty"`
}

// server keeps FOLDER/data/NAME and mounts on FOLDER/mnt/NAME.
type server struct {
	dir string

	mu  sync.Mutex
	ids map[string]map[string]bool // who has mounted what
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: plugintest SOCKET FOLDER")
	}
	s := &server{dir: os.Args[2], ids: make(map[string]map[string]bool)}
	mux := http.NewServeMux()
	for name, f := range map[string]func(request) (answer, error){
		"Plugin.Activate":           func(request) (answer, error) { return answer{Implements: []string{"VolumeDriver"}}, nil },
		"VolumeDriver.Capabilities": func(request) (answer, error) { return answer{Capabilities: map[string]string{"Scope": "global"}}, nil },
		"VolumeDriver.Create":       s.create,
		"VolumeDriver.Remove":       s.remove,
		"VolumeDriver.Get":          s.get,
		"VolumeDriver.List":         s.list,
		"VolumeDriver.Path":         s.get,
		"VolumeDriver.Mount":        s.mount,
		"VolumeDriver.Unmount":      s.unmount,
	} {
		mux.HandleFunc("POST /"+name, func(w http.ResponseWriter, r *http.Request) {
			var req request
			if r.ContentLength > 0 {
				if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			a, err := f(req)
			if err != nil {
				a = answer{Err: err.Error()}
			}
			w.Header().Set("Content-Type", "application/vnd.docker.plugins.v1.2+json")
			if err := json.NewEncoder(w).Encode(a); err != nil {
				log.Print(err)
			}
		})
	}
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	log.Fatal(http.Serve(l, mux)) // until the test kills it
}

func (s *server) data(name string) string { return filepath.Join(s.dir, "data", name) }
func (s *server) mnt(name string) string  { return filepath.Join(s.dir, "mnt", name) }

func (s *server) create(r request) (answer, error) {
	if r.Opts["fail"] != "" {
		return answer{}, fmt.Errorf("asked to fail: %s", r.Opts["fail"])
	}
	return answer{}, os.MkdirAll(s.data(r.Name), 0o755)
}

func (s *server) remove(r request) (answer, error) {
	if len(s.ids[r.Name]) > 0 {
		return answer{}, fmt.Errorf("volume %s is mounted", r.Name)
	}
	if err := os.RemoveAll(s.mnt(r.Name)); err != nil {
		return answer{}, err
	}
	return answer{}, os.RemoveAll(s.data(r.Name))
}

func (s *server) get(r request) (answer, error) {
	if _, err := os.Stat(s.data(r.Name)); err != nil {
		return answer{}, fmt.Errorf("no volume %s", r.Name)
	}
	v := vol{Name: r.Name, CreatedAt: "2026-01-02T03:04:05Z", Status: map[string]any{"mounts": len(s.ids[r.Name])}}
	if len(s.ids[r.Name]) > 0 {
		v.Mountpoint = s.mnt(r.Name)
	}
	return answer{Volume: &v, Mountpoint: v.Mountpoint}, nil
}

func (s *server) list(request) (answer, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "data"))
	if err != nil && !os.IsNotExist(err) {
		return answer{}, err
	}
	var a answer
	for _, e := range entries {
		a.Volumes = append(a.Volumes, vol{Name: e.Name()})
	}
	return a, nil
}

func (s *server) mount(r request) (answer, error) {
	if r.ID == "" {
		return answer{}, fmt.Errorf("no ID")
	}
	if len(s.ids[r.Name]) == 0 {
		if err := os.MkdirAll(s.mnt(r.Name), 0o755); err != nil {
			return answer{}, err
		}
		if err := syscall.Mount(s.data(r.Name), s.mnt(r.Name), "", syscall.MS_BIND, ""); err != nil {
			return answer{}, err
		}
		s.ids[r.Name] = make(map[string]bool)
	}
	s.ids[r.Name][r.ID] = true
	return answer{Mountpoint: s.mnt(r.Name)}, nil
}

func (s *server) unmount(r request) (answer, error) {
	if !s.ids[r.Name][r.ID] {
		return answer{}, fmt.Errorf("%s has not mounted %s", r.ID, r.Name)
	}
	delete(s.ids[r.Name], r.ID)
	if len(s.ids[r.Name]) > 0 {
		return answer{}, nil
	}
	return answer{}, syscall.Unmount(s.mnt(r.Name), 0)
}
