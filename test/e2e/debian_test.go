package e2e

import (
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/lab"
)

// TestDebian runs servers that people run: nginx and PostgreSQL out of
// Debian's packages, and replaces a container under its data.
func TestDebian(t *testing.T) {
	archive, err := lab.Debian(debianPackages()...)
	if err != nil {
		t.Fatal(err)
	}
	d := lab.StartDaemon(t)
	d.Cleat("import", archive, "debian:test")

	d.Cleat("run", "-d", "--name", "web", "-p", "127.0.0.1:18300:80", "debian:test", "nginx", "-g", "daemon off;")
	lab.Eventually(t, "nginx answers", func() bool {
		out, err := lab.Fetch("http://127.0.0.1:18300/")
		return err == nil && strings.Contains(out, "nginx")
	})
	d.Cleat("rm", "-f", "web")

	const prepare = `set -e
bin=$(ls -d /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
mkdir -p $data && chown postgres $data && chmod 700 $data
[ -s $data/PG_VERSION ] || su postgres -c "$bin/initdb -D $data --no-sync" >/dev/null
exec su postgres -c "exec $bin/postgres -D $data -c unix_socket_directories=/tmp"`
	start := func(name string) {
		d.Cleat("run", "-d", "--name", name, "--stop-signal", "INT", "-v", "pgdata:/var/lib/postgresql", "debian:test", "sh", "-c", prepare)
		lab.Eventually(t, "PostgreSQL answers", func() bool {
			_, err := d.Client("cleat", "exec", name, "su", "postgres", "-c", "psql -h /tmp -c 'select 1'")
			return err == nil
		})
	}
	start("first")
	d.Cleat("exec", "first", "su", "postgres", "-c",
		`psql -h /tmp -c "create table t (v text); insert into t values ('kept')"`)
	d.Cleat("stop", "-t", "30", "first")
	d.Cleat("rm", "first")
	start("second")
	if got := d.Cleat("exec", "second", "su", "postgres", "-c", `psql -h /tmp -Atc "select v from t"`); got != "kept" {
		t.Errorf("the new container reads %q", got)
	}
	d.Cleat("rm", "-f", "second")
	d.Cleat("volume", "rm", "pgdata")
}

func debianPackages() []string { return []string{"nginx-light", "postgresql"} }
