// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// A manifest is what one file has for one workload, at first for its first
// Deployment or StatefulSet. Only what is played is here;
// examples/kubernetes/check knows every field.
type manifest struct {
	workload
	workloads  []workload
	aliases    map[string][]string // names of Services, by the label app of their pods
	configMaps map[string]map[string]string
	secrets    map[string]map[string]string
}

type workload struct {
	name, app string
	replicas  int
	pod       podSpec
}

// of is the manifest for another workload of the file.
func (m manifest) of(name string) manifest {
	for _, w := range m.workloads {
		if w.name == name {
			m.workload = w
			return m
		}
	}
	panic("no workload " + name)
}

type podSpec struct {
	InitContainers                []podContainer `yaml:"initContainers"`
	Containers                    []podContainer
	TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               struct {
		RunAsUser  int `yaml:"runAsUser"`
		RunAsGroup int `yaml:"runAsGroup"`
		FSGroup    int `yaml:"fsGroup"`
	} `yaml:"securityContext"`
	Volumes []podVolume
}

type podVolume struct {
	Name      string
	ConfigMap struct {
		Name string
		Mode os.FileMode `yaml:"defaultMode"`
	} `yaml:"configMap"`
	Secret struct {
		Name string      `yaml:"secretName"`
		Mode os.FileMode `yaml:"defaultMode"`
	}
}

type podContainer struct {
	Name, Image   string
	RestartPolicy string `yaml:"restartPolicy"`
	Command, Args []string
	Env           []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	Ports []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	StartupProbe   podProbe `yaml:"startupProbe"`
	LivenessProbe  podProbe `yaml:"livenessProbe"`
	ReadinessProbe podProbe `yaml:"readinessProbe"`
	VolumeMounts   []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	Resources struct {
		Limits struct{ Memory string }
	}
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
}

type podProbe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

func readManifest(t *testing.T, file string) manifest {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	m := manifest{aliases: map[string][]string{}, configMaps: map[string]map[string]string{}, secrets: map[string]map[string]string{}}
	for documents := yaml.NewDecoder(f); ; {
		var object struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Spec     yaml.Node
			Data     map[string]string
			Secrets  map[string]string `yaml:"stringData"`
		}
		err := documents.Decode(&object)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, m.workloads)
			m.workload = m.workloads[0]
			return m
		}
		require.NoError(t, err)
		switch object.Kind {
		case "Deployment", "StatefulSet":
			var spec struct {
				Replicas int
				Template struct {
					Metadata struct{ Labels struct{ App string } }
					Spec     podSpec
				}
				Claims []struct{ Metadata struct{ Name string } } `yaml:"volumeClaimTemplates"`
			}
			spec.Template.Spec.TerminationGracePeriodSeconds = 30 // where it says nothing
			require.NoError(t, object.Spec.Decode(&spec))
			w := workload{
				name: object.Metadata.Name, app: spec.Template.Metadata.Labels.App,
				replicas: spec.Replicas, pod: spec.Template.Spec,
			}
			for _, claim := range spec.Claims {
				w.pod.Volumes = append(w.pod.Volumes, podVolume{Name: claim.Metadata.Name})
			}
			m.workloads = append(m.workloads, w)
		case "Service":
			var spec struct{ Selector struct{ App string } }
			require.NoError(t, object.Spec.Decode(&spec))
			names := []string{object.Metadata.Name}
			if ns := object.Metadata.Namespace; ns != "" {
				names = append(names, names[0]+"."+ns+".svc", names[0]+"."+ns+".svc.cluster.local")
			}
			m.aliases[spec.Selector.App] = append(m.aliases[spec.Selector.App], names...)
		case "ConfigMap":
			m.configMaps[object.Metadata.Name] = object.Data
		case "Secret":
			m.secrets[object.Metadata.Name] = object.Secrets
		}
	}
}

// A dockerPod does with Docker what the kubelet does with a pod: one container
// that holds the network, volumes with the owners and modes that the kubelet
// gives them, init containers one after the other, sidecars that go on, then
// the application, and the same in reverse.
type dockerPod struct {
	t        *testing.T
	spec     podSpec
	objects  manifest
	images   map[string]string // by the name in the manifest
	sandbox  *dockerContainer
	volumes  map[string]string // directories of this machine
	sidecars []*dockerContainer
	apps     []*dockerContainer
}

// startPod makes the sandbox and the volumes. Nothing of the pod runs yet.
func startPod(t *testing.T, m manifest, images map[string]string, network string) *dockerPod {
	t.Helper()
	p := &dockerPod{t: t, spec: m.pod, objects: m, images: images, volumes: map[string]string{}}
	options := []string{"--network", network, "--publish", "127.0.0.1::10102", "--publish", "127.0.0.1::8080"}
	for _, alias := range m.aliases[m.app] {
		options = append(options, "--network-alias", alias)
	}
	p.sandbox = startContainer(t, images["sandbox"], options, "sleep", "10m")
	for _, v := range p.spec.Volumes {
		dir := filepath.Join(t.TempDir(), v.Name)
		require.NoError(t, os.Mkdir(dir, 0o755))
		switch {
		case v.ConfigMap.Name != "":
			p.project(dir, v.ConfigMap.Mode, m.configMaps[v.ConfigMap.Name])
		case v.Secret.Name != "":
			p.project(dir, v.Secret.Mode, m.secrets[v.Secret.Name])
		}
		// What belongs to fsGroup keeps doing so.
		require.NoError(t, os.Chown(dir, 0, p.spec.SecurityContext.FSGroup))
		require.NoError(t, os.Chmod(dir, 0o777|os.ModeSetgid))
		p.volumes[v.Name] = dir
	}
	return p
}

// project writes a volume as the kubelet does it, with a link that an update
// would swap. The files belong to root, and the pod's group can read them.
func (p *dockerPod) project(dir string, mode os.FileMode, files map[string]string) {
	p.t.Helper()
	require.NotEmpty(p.t, files)
	if mode == 0 {
		mode = 0o644
	}
	group := p.spec.SecurityContext.FSGroup
	if group != 0 {
		mode |= 0o440
	}
	const data = "..2026_01_02_03_04_05.123456789"
	require.NoError(p.t, os.Mkdir(filepath.Join(dir, data), 0o755))
	require.NoError(p.t, os.Symlink(data, filepath.Join(dir, "..data")))
	for name, content := range files {
		file := filepath.Join(dir, data, name)
		require.NoError(p.t, os.WriteFile(file, []byte(content), 0o600))
		require.NoError(p.t, os.Chown(file, 0, group))
		require.NoError(p.t, os.Chmod(file, mode))
		require.NoError(p.t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
}

// A podEnd is how an init container ended that did not succeed.
type podEnd struct {
	container, message, log string
	code                    int
}

// start runs the init containers, waits for the startup probes of sidecars, and
// starts the application. It returns the first init container that fails.
func (p *dockerPod) start() *podEnd {
	p.t.Helper()
	for _, c := range p.spec.InitContainers {
		running, message := p.run(c)
		if c.RestartPolicy == "Always" {
			p.sidecars = append(p.sidecars, running)
			p.succeeds(c, c.StartupProbe)
			continue
		}
		if code := running.wait(); code != 0 {
			text, err := os.ReadFile(message)
			require.NoError(p.t, err)
			return &podEnd{container: c.Name, code: code, message: string(text), log: running.log()}
		}
	}
	for _, c := range p.spec.Containers {
		running, _ := p.run(c)
		p.apps = append(p.apps, running)
		p.succeeds(c, c.StartupProbe)
		p.succeeds(c, c.ReadinessProbe)
		p.succeeds(c, c.LivenessProbe)
	}
	return nil
}

// run starts a container of the pod and returns it with its termination log.
func (p *dockerPod) run(c podContainer) (running *dockerContainer, message string) {
	p.t.Helper()
	message = filepath.Join(p.t.TempDir(), "termination-log")
	require.NoError(p.t, os.WriteFile(message, nil, 0o666))
	require.NoError(p.t, os.Chmod(message, 0o666))

	pod, own := p.spec.SecurityContext, c.SecurityContext
	args := []string{
		"run", "--detach", "--network", "container:" + p.sandbox.name, "--volume", message + ":/dev/termination-log",
		"--user", strconv.Itoa(pod.RunAsUser) + ":" + strconv.Itoa(pod.RunAsGroup), "--group-add", strconv.Itoa(pod.FSGroup),
		"--memory", strings.TrimSuffix(c.Resources.Limits.Memory, "i"), // Docker's m is Kubernetes' Mi
	}
	if own.ReadOnlyRootFilesystem {
		args = append(args, "--read-only")
	}
	if own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation {
		args = append(args, "--security-opt", "no-new-privileges")
	}
	for _, capability := range own.Capabilities.Drop {
		args = append(args, "--cap-drop", capability)
	}
	for _, m := range c.VolumeMounts {
		mount := p.volumes[m.Name] + ":" + m.MountPath
		if m.ReadOnly {
			mount += ":ro"
		}
		args = append(args, "--volume", mount)
	}
	env := map[string]string{}
	for _, e := range c.Env {
		value := expand(e.Value, env)
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			value = p.objects.secrets[ref.Name][ref.Key]
			require.NotEmpty(p.t, value, "%s: %s", c.Name, e.Name)
		}
		env[e.Name] = value
		args = append(args, "--env", e.Name+"="+value)
	}
	var command []string
	for _, word := range append(append([]string{}, c.Command...), c.Args...) {
		command = append(command, expand(word, env))
	}
	if len(c.Command) > 0 {
		args, command = append(args, "--entrypoint", command[0]), command[1:]
	}
	image := p.images[c.Image]
	require.NotEmpty(p.t, image, "no such image: %s", c.Image)

	out := docker(p.t, append(append(args, image), command...)...)
	running = &dockerContainer{t: p.t, name: out[strings.LastIndexByte(out, '\n')+1:]}
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", c.Name, running.log())
		}
		dockerTry("rm", "--force", "--volumes", running.name)
	})
	return running, message
}

// reference is $(NAME), or $$(NAME), which stays $(NAME).
var reference = regexp.MustCompile(`\$?\$\([A-Za-z_][A-Za-z0-9_]*\)`)

// expand is Kubernetes' expansion: an unknown name stays as it is.
func expand(s string, env map[string]string) string {
	return reference.ReplaceAllStringFunc(s, func(ref string) string {
		if strings.HasPrefix(ref, "$$") {
			return ref[1:]
		}
		if value, ok := env[ref[2:len(ref)-1]]; ok {
			return value
		}
		return ref
	})
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1"}
	assert.Equal(t, "x1$(A)$(B)", expand("x$(A)$$(A)$(B)", env))
}

// succeeds waits for a probe of a container.
func (p *dockerPod) succeeds(c podContainer, probe podProbe) {
	p.t.Helper()
	port, _ := strconv.Atoi(probe.HTTPGet.Port)
	for _, named := range c.Ports {
		if named.Name == probe.HTTPGet.Port {
			port = named.Port
		}
	}
	p.prober(port).becomes(probe.HTTPGet.Path, http.StatusOK)
}

// prober asks a port of the pod.
func (p *dockerPod) prober(port int) *prober {
	p.t.Helper()
	return &prober{
		t: p.t, base: "http://" + p.sandbox.address(port),
		client: http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
}

// stop ends the pod as the kubelet does, within one grace period for all: the
// application first, then the sidecars, the last one first, each of which has
// what is left, but 2 s. It returns their exit codes in that order.
func (p *dockerPod) stop() (codes []int) {
	p.t.Helper()
	deadline := time.Now().Add(time.Duration(p.spec.TerminationGracePeriodSeconds) * time.Second)
	all := append([]*dockerContainer{}, p.apps...)
	for i := range p.sidecars {
		all = append(all, p.sidecars[len(p.sidecars)-1-i])
	}
	for _, c := range all {
		left := max(time.Until(deadline).Round(time.Second), 2*time.Second)
		out, err := exec.Command("docker", "stop", "-t", strconv.Itoa(int(left.Seconds())), c.name).CombinedOutput()
		require.NoError(p.t, err, "%s", out)
		codes = append(codes, c.wait())
	}
	return codes
}
