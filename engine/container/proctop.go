package container

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// ownTop lists processes like "ps -ef", for machines whose ps cannot.
func (s *Service) ownTop(pids []int) container.TopResponse {
	top := container.TopResponse{
		Titles:    []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{},
	}
	now := s.clock.Now()
	up := uptime()
	names := userNames()
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // it has ended
		}
		fi, err := os.Stat(dir)
		if err != nil {
			continue
		}
		cmd, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue
		}
		p, ok := parseProcStat(string(stat))
		if !ok {
			continue
		}
		uid := ""
		if st, ok := fi.Sys().(*unixStat); ok {
			uid = strconv.Itoa(int(st.Uid))
			if n := names[uid]; n != "" {
				uid = n
			}
		}
		top.Processes = append(top.Processes, p.row(uid, pid, strings.TrimSpace(string(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '}))), now, up))
	}
	return top
}

// procStat is what is used of /proc/PID/stat; times are in hundredths of a second.
type procStat struct {
	name       string
	ppid, tty  int
	cpu, start uint64
}

// parseProcStat reads proc(5)'s stat. The name is in parentheses and can hold anything.
func parseProcStat(s string) (p procStat, ok bool) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return p, false
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 20 {
		return p, false
	}
	p.name = s[open+1 : end]
	ppid, err1 := strconv.Atoi(f[1])
	tty, err2 := strconv.Atoi(f[4])
	user, err3 := strconv.ParseUint(f[11], 10, 64)
	sys, err4 := strconv.ParseUint(f[12], 10, 64)
	start, err5 := strconv.ParseUint(f[19], 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || err5 != nil {
		return p, false
	}
	p.ppid, p.tty, p.cpu, p.start = ppid, tty, user+sys, start
	return p, true
}

const tick = time.Second / 100

func (p *procStat) row(uid string, pid int, cmd string, now time.Time, up time.Duration) []string {
	age := max(0, up-time.Duration(p.start)*tick)
	began := now.Add(-age).Local()
	stime := began.Format("15:04")
	switch {
	case began.Year() != now.Local().Year():
		stime = began.Format("2006")
	case age > 24*time.Hour:
		stime = began.Format("Jan02")
	}
	if cmd == "" {
		cmd = "[" + p.name + "]" // a zombie or a thread of the kernel
	}
	used := time.Duration(p.cpu) * tick
	share := 0
	if age > 0 {
		share = min(99, int(100*used/age))
	}
	sec := int(used.Seconds())
	return []string{
		uid, strconv.Itoa(pid), strconv.Itoa(p.ppid), strconv.Itoa(share), stime, ttyName(p.tty),
		fmt.Sprintf("%02d:%02d:%02d", sec/3600, sec/60%60, sec%60), cmd,
	}
}

func ttyName(nr int) string {
	major, minor := nr>>8&0xfff, nr&0xff|nr>>12&0xfff00
	switch {
	case nr == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa((major-136)<<20|minor)
	}
	return "tty" + strconv.Itoa(minor)
}

func uptime() time.Duration {
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0
	}
	text, _, _ := strings.Cut(string(b), " ")
	sec, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0
	}
	return time.Duration(sec * float64(time.Second))
}

// userNames are this host's, by number: what ps would show.
func userNames() map[string]string {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	names := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && names[f[2]] == "" {
			names[f[2]] = f[0]
		}
	}
	return names
}
