package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoenig/test"
	"github.com/shoenig/test/must"

	"github.com/nomad-promptflow/nomad-promptflow/e2e/harness"
)

// TestNomad_jobs runs one job after the other, or beside the other, on one cluster: nothing here disturbs its agents. Every scenario is
// a job file of the folder jobs.
func TestNomad_jobs(t *testing.T) {
	volume := t.TempDir()
	must.NoError(t, os.WriteFile(filepath.Join(volume, "in"), []byte("from the node"), 0o644))
	c := startCluster(t, fmt.Sprintf(`
client {
  host_volume "data" {
    path = %q
  }
  artifact {
    http_read_timeout = "10s"
    http_max_size     = "1MB"
  }
}
# Agents since 1.10.2 ask for no statistics without it.
telemetry {
  publish_allocation_metrics = true
}
`, volume))
	c.must(t, "operator", "scheduler", "set-config", "-memory-oversubscription=true")

	for _, scenario := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"service", serviceScenario},
		{"batch exit codes", batchScenario},
		{"restart and reschedule", rescheduleScenario},
		{"restart by hand", restartScenario},
		{"start that fails", badStartScenario},
		{"lifecycle", lifecycleScenario},
		{"exec", execScenario},
		{"exec in a terminal", terminalScenario},
		{"logs follow", logsScenario},
		{"signal", signalScenario},
		{"template change modes", templateScenario},
		{"artifact", artifactScenario},
		{"bridge network", bridgeScenario},
		{"memory oversubscription", oversubscriptionScenario},
		{"out of memory", outOfMemoryScenario},
		{"statistics", statisticsScenario},
		{"cores", coresScenario},
	} {
		t.Run(scenario.name, func(t *testing.T) {
			t.Parallel()
			scenario.run(t, c)
		})
	}
	t.Run("host volume", func(t *testing.T) {
		t.Parallel()
		volumeScenario(t, c, volume)
	})
}

// served is what the web server behind an address answers.
func served(address string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(address)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func serviceScenario(t *testing.T, c *cluster) {
	c.run(t, "web")
	alloc := c.await(t, "web", "running")
	address, err := service(c.Nomad, "web")
	must.NoError(t, err)
	body, err := served(address)
	must.NoError(t, err)
	test.Eq(t, "served by web", body)

	c.stop(t, "web")
	harness.Eventually(t, soon, "nothing left of the service", func() error {
		if _, err := served(address); err == nil {
			return errors.New("it still answers")
		}
		if _, err := service(c.Nomad, "web"); err == nil {
			return errors.New("it is still registered")
		}
		if c.hasContainer(t, alloc.ID) {
			return errors.New("its container is still there")
		}
		return nil
	})
}

func batchScenario(t *testing.T, c *cluster) {
	for _, code := range []int{0, 1, 7, 255} {
		status := "failed"
		if code == 0 {
			status = "complete"
		}
		job := "batch-" + strconv.Itoa(code)
		c.submit(t, "batch", "id="+job, fmt.Sprintf("script=exit %d", code))
		details := c.awaitExit(t, job, status)
		test.Eq(t, strconv.Itoa(code), details["exit_code"])
		test.Eq(t, "0", details["signal"])
		test.Eq(t, "false", details["oom_killed"])
	}
}

func rescheduleScenario(t *testing.T, c *cluster) {
	c.submit(t, "failing")
	var all []allocation
	harness.Eventually(t, patience, "two failed allocations", func() error {
		var err error
		if all, err = c.allocations("failing"); err != nil {
			return err
		}
		if len(all) != 2 || all[0].ClientStatus != "failed" || all[1].ClientStatus != "failed" {
			return fmt.Errorf("allocations: %+v", all)
		}
		return nil
	})
	test.Eq(t, all[0].ID, all[1].PreviousAllocation)
	for _, alloc := range all {
		task := alloc.TaskStates["main"]
		test.Eq(t, 1, task.Restarts, test.Sprint(alloc.describe()))
		want := []string{"Started", "Terminated", "Restarting", "Started", "Terminated", "Not Restarting"}
		got := slices.DeleteFunc(task.kinds(), func(kind string) bool { return !slices.Contains(want, kind) })
		test.Eq(t, want, got, test.Sprint(alloc.describe()))
	}
}

func restartScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "restart")
	first := c.process(t, alloc)
	c.must(t, "alloc", "restart", alloc, "main")
	harness.Eventually(t, soon, "the output of the new process after that of the old", func() error {
		out, err := c.logs(t, alloc, "main", "stdout")
		if err == nil && strings.Count(out, "ready") != 2 {
			err = fmt.Errorf("it is %q", out)
		}
		return err
	})
	test.NotEq(t, first, c.process(t, alloc))
	c.tell(t, alloc, "end", "0")
	details := c.awaitExit(t, "restart", "complete")
	test.Eq(t, "0", details["exit_code"])
}

func lifecycleScenario(t *testing.T, c *cluster) {
	c.submit(t, "lifecycle")
	alloc := c.await(t, "lifecycle", "complete")
	for task, want := range map[string]string{"main": "before\nworker\n", "after": "before\nafter\n"} {
		harness.Eventually(t, soon, "the output of task "+task, func() error {
			out, err := c.logs(t, alloc.ID, task, "stdout")
			if err == nil && out != want {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		})
	}
}

func badStartScenario(t *testing.T, c *cluster) {
	c.submit(t, "bad")
	alloc := c.await(t, "bad", "failed")
	failure, ok := alloc.TaskStates["main"].event("Driver Failure")
	must.True(t, ok, must.Sprint(alloc.describe()))
	test.StrContains(t, failure.DisplayMessage, "no-such-environment")
	test.False(t, c.hasContainer(t, alloc.ID), test.Sprint("a container is left"))
}

func execScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "exec")
	test.Eq(t, execResult{stdout: "out\n", stderr: "err\n", code: 3},
		c.exec(t, alloc, "main", "/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
	test.Eq(t, execResult{stdout: "what is typed"}, c.execWith(t, "what is typed", alloc, "main", "/bin/cat"))
	missing := c.exec(t, alloc, "main", "/no/such/program")
	test.Eq(t, 127, missing.code)
	test.StrContains(t, missing.stderr, "/no/such/program: the command is not in the image")
	big := c.exec(t, alloc, "main", "/bin/dd", "if=/dev/zero", "bs=1M", "count=4")
	test.Eq(t, 4<<20, len(big.stdout))
	c.stop(t, "exec")
}

func terminalScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "terminal")
	cmd := c.Command(t, "alloc", "exec", "-i", "-t", "-task", "main", alloc, "/bin/sh")
	terminal := harness.StartOnTerminal(t, cmd, 33, 77)
	terminal.Await(soon, "# ")
	terminal.Type("tty\n")
	terminal.Await(soon, "/dev/pts/")
	// A size is on its way beside what is typed, the first one too.
	terminal.Type("until stty size | grep '33 77'; do sleep 0.1; done\n")
	terminal.Await(soon, "\n33 77")
	terminal.Resize(44, 88)
	terminal.Type("until stty size | grep '44 88'; do sleep 0.1; done\n")
	terminal.Await(soon, "\n44 88")
	terminal.Type("exit 5\n")
	_ = cmd.Wait() // its exit code is the result
	test.Eq(t, 5, cmd.ProcessState.ExitCode(), test.Sprint(terminal.Output()))
	c.stop(t, "terminal")
}

func logsScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "logs")
	follow := c.Command(t, "alloc", "logs", "-f", "-task", "main", alloc)
	terminal := harness.StartOnTerminal(t, follow, 25, 80)
	terminal.Await(soon, "ready")
	c.tell(t, alloc, "say", "hello")
	terminal.Await(soon, "says hello")
	c.tell(t, alloc, "say", "again")
	terminal.Await(soon, "says again")
	must.NoError(t, follow.Process.Kill())
	_ = follow.Wait()
	c.stop(t, "logs")
}

func signalScenario(t *testing.T, c *cluster) {
	alloc := c.startPatient(t, "signal")
	c.must(t, "alloc", "signal", "-s", "SIGHUP", "-task", "main", alloc)
	c.awaitLog(t, alloc, "stdout", "got HUP")
	c.must(t, "alloc", "signal", "-s", "SIGUSR1", "-task", "main", alloc)
	c.awaitLog(t, alloc, "stderr", "got USR1")
	out, err := c.Run(t, "alloc", "signal", "-s", "SIGNOTHING", "-task", "main", alloc)
	test.Error(t, err, test.Sprint(out))
	test.StrContains(t, out, "SIGNOTHING")
	c.must(t, "alloc", "signal", "-s", "SIGKILL", "-task", "main", alloc)
	details := c.awaitExit(t, "signal", "failed")
	test.Eq(t, "137", details["exit_code"])
	test.Eq(t, "9", details["signal"])
	test.Eq(t, "false", details["oom_killed"])
}

func templateScenario(t *testing.T, c *cluster) {
	c.must(t, "var", "put", "-force", "nomad/jobs/template", "word=first")
	c.run(t, "template")
	alloc := c.await(t, "template", "running").ID
	test.Eq(t, "first", c.told(t, alloc, "word"))
	test.Eq(t, "text: first", c.told(t, alloc, "text"))
	test.Eq(t, "", c.told(t, alloc, "signalled"), test.Sprint("nothing has changed yet"))

	c.must(t, "var", "put", "-force", "nomad/jobs/template", "word=second")
	for file, want := range map[string]string{"signalled": "second", "scripted": "text: second"} {
		harness.Eventually(t, patience, "the task told of the change", func() error {
			if got := c.told(t, alloc, file); got != want {
				return fmt.Errorf("/local/%s is %q", file, got)
			}
			return nil
		})
	}
	now, err := c.allocation(alloc)
	must.NoError(t, err)
	test.Eq(t, 0, now.TaskStates["main"].Restarts)
	c.stop(t, "template")
}

// packed is an archive with one file.
func packed(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	archive := tar.NewWriter(zipped)
	must.NoError(t, archive.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
	_, err := archive.Write([]byte(content))
	must.NoError(t, err)
	must.NoError(t, archive.Close())
	must.NoError(t, zipped.Close())
	return b.Bytes()
}

func artifactScenario(t *testing.T, c *cluster) {
	archive := packed(t, "greeting", "hello from an archive\n")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "greeting.tar.gz", time.Time{}, bytes.NewReader(archive))
	}))
	defer server.Close()
	sum := sha256.Sum256(archive)
	source := "source=" + server.URL + "/greeting.tar.gz"

	c.submit(t, "artifact", source, "checksum=sha256:"+hex.EncodeToString(sum[:]))
	alloc := c.await(t, "artifact", "complete").ID
	c.awaitLog(t, alloc, "stdout", "hello from an archive")
	c.stop(t, "artifact")
}

func bridgeScenario(t *testing.T, c *cluster) {
	needBridge(t)
	c.run(t, "bridge")
	alloc := c.await(t, "bridge", "running").ID
	address, err := service(c.Nomad, "bridge")
	must.NoError(t, err)
	body, err := served(address)
	must.NoError(t, err, must.Sprint("through the mapped port"))
	test.Eq(t, "from within", body)
	test.Eq(t, execResult{stdout: "from within"},
		c.exec(t, alloc, "neighbour", "/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"))
	test.StrContains(t, c.exec(t, alloc, "neighbour", "/bin/cat", "/etc/resolv.conf").stdout, "nameserver 192.0.2.53")
	mapped := c.exec(t, alloc, "server", "/bin/sh", "-c", "echo $NOMAD_PORT_http $NOMAD_ALLOC_PORT_http $NOMAD_HOST_PORT_http").stdout
	test.StrContains(t, mapped, "8080")
	c.stop(t, "bridge")
}

func volumeScenario(t *testing.T, c *cluster, volume string) {
	c.submit(t, "volume")
	c.await(t, "volume", "complete")
	got, err := os.ReadFile(filepath.Join(volume, "out"))
	must.NoError(t, err)
	test.Eq(t, "from the node", string(got))
	test.FileNotExists(t, filepath.Join(volume, "forbidden"))
}

func oversubscriptionScenario(t *testing.T, c *cluster) {
	c.submit(t, "memory", "id=oversubscription", "memory_max=128")
	c.awaitExit(t, "oversubscription", "complete")
}

func outOfMemoryScenario(t *testing.T, c *cluster) {
	c.submit(t, "memory", "id=out-of-memory")
	details := c.awaitExit(t, "out-of-memory", "failed")
	test.Eq(t, "137", details["exit_code"])
	test.Eq(t, "true", details["oom_killed"])
}

func statisticsScenario(t *testing.T, c *cluster) {
	c.run(t, "busy")
	alloc := c.await(t, "busy", "running").ID
	var stats struct {
		ResourceUsage struct {
			CPUStats    struct{ Percent, TotalTicks float64 } `json:"CpuStats"`
			MemoryStats struct{ RSS, Usage uint64 }
		}
	}
	harness.Eventually(t, soon, "the task's use of cpu and memory", func() error {
		if err := c.Get("/v1/client/allocation/"+alloc+"/stats", &stats); err != nil {
			return err
		}
		used := stats.ResourceUsage
		if used.CPUStats.Percent < 1 || used.CPUStats.TotalTicks < 1 || used.MemoryStats.Usage == 0 || used.MemoryStats.RSS == 0 {
			return fmt.Errorf("statistics: %+v", used)
		}
		return nil
	})
	out := c.must(t, "alloc", "status", "-stats", alloc)
	test.RegexMatch(t, regexp.MustCompile(`(?s)Memory Stats.*RSS`), out)
	c.stop(t, "busy")
}

func coresScenario(t *testing.T, c *cluster) {
	n, err := nodeOf(c.Nomad)
	must.NoError(t, err)
	if n.Attributes["cpu.reservablecores"] == "" {
		t.Skip("this agent has no cores to reserve: " + n.Attributes["os.cgroups.version"])
	}
	other := c.startPatient(t, "shares-cores")
	c.run(t, "cores")
	alloc := c.await(t, "cores", "running").ID
	allowed := func(alloc string) []string {
		cpus := c.exec(t, alloc, "main", "/bin/grep", "Cpus_allowed_list", "/proc/1/status").stdout
		return strings.Split(strings.TrimSpace(strings.TrimPrefix(cpus, "Cpus_allowed_list:")), ",")
	}
	own := allowed(alloc)
	must.Len(t, 1, own)
	test.StrNotContains(t, own[0], "-", test.Sprint("one core"))
	harness.Eventually(t, patience, "the core taken from tasks that have none of their own", func() error {
		if shared := allowed(other); slices.Contains(shared, own[0]) || strings.Contains(shared[0], "-") {
			return fmt.Errorf("they may use %v, the task's own is %v", shared, own)
		}
		return nil
	})
	c.stop(t, "cores")
	c.stop(t, "shares-cores")
}
