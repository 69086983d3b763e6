package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segment is one file of a log.
type segment struct {
	seq  int
	gz   bool // only the compressed file exists
	both bool // a compressed file, perhaps of an interrupted writer, is beside it
}

func segmentPath(dir, ext string, seq int) string {
	return filepath.Join(dir, fmt.Sprintf("%08d%s", seq, ext))
}

// listSegments returns the segments of dir in order. An absent folder is an
// empty log.
func listSegments(dir, ext string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []segment
	for _, e := range entries {
		name, gz := strings.CutSuffix(e.Name(), ".gz")
		digits, ok := strings.CutSuffix(name, ext)
		seq, err := strconv.Atoi(digits)
		if !ok || err != nil || seq < 1 || !e.Type().IsRegular() {
			continue
		}
		if i := slices.IndexFunc(list, func(s segment) bool { return s.seq == seq }); i >= 0 {
			list[i].gz, list[i].both = false, true
			continue
		}
		list = append(list, segment{seq: seq, gz: gz})
	}
	slices.SortFunc(list, func(a, b segment) int { return cmp.Compare(a.seq, b.seq) })
	return list, nil
}

// Path is the file that docker inspect shows as LogPath: for json-file a name
// that always leads to the segment being written, else "".
func Path(cfg Config) string {
	if cfg.Driver != DriverJSON {
		return ""
	}
	return filepath.Join(cfg.Dir, currentName)
}

const currentName = "container-json.log"
