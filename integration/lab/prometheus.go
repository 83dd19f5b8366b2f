package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
)

// moduleDir is the folder of the module that the lab is in.
func moduleDir() (string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/razor-steering/razor").Output()
	return strings.TrimSpace(string(dir)), err
}

// target is where Prometheus finds a process.
type target struct {
	Targets []string          `yaml:"targets"`
	Labels  map[string]string `yaml:"labels"`
}

// watch runs a Prometheus, with the jobs and rules of deploy/prometheus.yml, that asks every
// razor of the lab. It returns when it is ready.
func (l *lab) watch() error {
	program, err := exec.LookPath("prometheus")
	if err != nil {
		return fmt.Errorf("-prometheus: %w (Debian: prometheus)", err)
	}
	targets, err := l.targets()
	if err != nil {
		return err
	}
	dir := filepath.Join(l.net.Dir, "prometheus")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	config, err := prometheusConfig(targets)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "prometheus.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	err = try(func() {
		l.eventually("prometheus", func() (bool, string) {
			answer, err := http.Get("http://" + address + "/-/ready")
			if err != nil {
				text, _ := os.ReadFile(log.Name())
				return false, fmt.Sprintf("%v\n%s", err, text)
			}
			_ = answer.Body.Close()
			return answer.StatusCode == http.StatusOK, answer.Status
		})
	})
	fmt.Fprintf(l.out, "%-10s http://%s/\n\n", "prometheus", address)
	l.prometheus = address
	return err
}

// targets are doors to all processes of razor, by the jobs of deploy/prometheus.yml.
func (l *lab) targets() (map[string][]target, error) {
	out := map[string][]target{}
	for _, h := range l.hosts() {
		job, to := "", ""
		switch {
		case h.role == roleGateway:
			job, to = "razor-gateway", httpAddress
		case h.role == roleBackend:
			job, to = "razor-agent", httpAgent
		case h.role == roleServices && h.site.DNS:
			job, to = "razor-dns", httpDNS
		default:
			continue
		}
		d, err := l.door(h, to, 0, "")
		if err != nil {
			return nil, err
		}
		out[job] = append(out[job], target{[]string{d.address}, map[string]string{"site": h.site.Name, "instance": h.name}})
	}
	return out, nil
}

// prometheusConfig is deploy/prometheus.yml with the targets of the lab, which is asked more
// often.
func prometheusConfig(targets map[string][]target) ([]byte, error) {
	dir, err := moduleDir()
	if err != nil {
		return nil, fmt.Errorf("-prometheus has to be in the module's folder: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "deploy", "prometheus.yml"))
	if err != nil {
		return nil, err
	}
	var c struct {
		Global map[string]any `yaml:"global"`
		Rules  []string       `yaml:"rule_files"`
		Jobs   []struct {
			Name    string   `yaml:"job_name"`
			Targets []target `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("deploy/prometheus.yml: %w", err)
	}
	c.Global["scrape_interval"], c.Global["evaluation_interval"] = "2s", "2s"
	for i := range c.Rules {
		c.Rules[i] = filepath.Join(dir, "deploy", c.Rules[i])
	}
	for i := range c.Jobs {
		c.Jobs[i].Targets = targets[c.Jobs[i].Name]
	}
	return yaml.Marshal(c)
}

// freeAddress is one of 127.0.0.1 that nobody listens on.
func freeAddress() (string, error) {
	d, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer d.Close()
	return d.Addr().String(), nil
}

// seeTargets is how many processes Prometheus has an answer of.
func (l *lab) seeTargets(*expectation) (n, of int, saw string) {
	if l.prometheus == "" {
		return -1, 0, "there is no prometheus: -prometheus"
	}
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + l.prometheus + "/api/v1/query?query=up")
	if err != nil {
		return -1, 0, err.Error()
	}
	defer answer.Body.Close()
	var got struct {
		Data struct {
			Result []struct {
				Metric map[string]string `yaml:"metric"`
				Value  []any             `yaml:"value"`
			} `yaml:"result"`
		} `yaml:"data"`
	}
	if err := yaml.NewDecoder(answer.Body).Decode(&got); err != nil {
		return -1, 0, err.Error()
	}
	var missing []string
	for _, r := range got.Data.Result {
		if len(r.Value) == 2 && fmt.Sprint(r.Value[1]) == "1" {
			n++
			continue
		}
		missing = append(missing, r.Metric["instance"])
	}
	return n, len(got.Data.Result), "all answer but: " + strings.Join(missing, ", ")
}
