// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var update = flag.Bool("update", false, "write what was rendered to rendered/")

// compare holds a rendered example to the file that shows it, which the
// integration tests run as a pod.
func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("..", "rendered", name+".yaml")
	got = "# SPDX-License-Identifier: Apache-2.0\n#\n# Rendered by the tests in examples/kubernetes/check: go test . -update\n" + got
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "run: go test . -update")
}

func TestKustomize(t *testing.T) {
	options := krusty.MakeDefaultOptions()
	resources, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), "../kustomize/production")
	require.NoError(t, err)
	manifest, err := resources.AsYaml()
	require.NoError(t, err)

	objects, err := decode(manifest)
	require.NoError(t, err)
	checkObjects(t, objects)
	compare(t, "kustomize", string(manifest))
	d := deployment(t, objects)
	assert.Equal(t, int32(3), *d.Spec.Replicas)
	assert.Equal(t, "production", d.Namespace)
	app := d.Spec.Template.Spec.Containers[0]
	assert.Equal(t, []string{"/cleanimg-init/cleanimg-init", "--", "/usr/local/bin/web-app"}, app.Command)
	assert.Equal(t, "example.com/shop:v1.4.2", app.Image)
	assert.Equal(t, []string{"/usr/local/bin/cleanimg-init", "--install", "/cleanimg-init"}, d.Spec.Template.Spec.InitContainers[0].Command)
}

// What the application says itself stays, but for the probes, and what the
// component adds to has to be there.
func TestKustomizeComponent(t *testing.T) {
	const shop = `apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {cleanimg-init: enabled}}
spec:
  template:
    spec:
      serviceAccountName: shop
      securityContext: {runAsUser: 101, fsGroup: 101}
      terminationGracePeriodSeconds: 60
      initContainers:
      - {name: own, image: own}
      containers:
      - name: app
        command: [/app]
        ports: [{name: http, containerPort: 8080}]
        env: [{name: CLEANIMG_INIT_STARTUP_CHECK, value: "file:///tmp/ready"}, {name: CLEANIMG_INIT_GRACE_PERIOD, value: 58s}]
        volumeMounts: [{name: tmp, mountPath: /tmp}]
        securityContext: {runAsUser: 102}
      volumes:
      - {name: tmp, emptyDir: {}}
`
	render := func(t *testing.T, shop string) (*appsv1.Deployment, error) {
		t.Helper()
		fs := filesys.MakeFsInMemory()
		files := map[string]string{
			"/shop/shop.yaml":          shop,
			"/shop/kustomization.yaml": "resources: [shop.yaml]\ncomponents: [../component]\n",
		}
		for _, name := range []string{"kustomization.yaml", "pod.yaml", "entrypoint.yaml"} {
			data, err := os.ReadFile(filepath.Join("..", "kustomize", "component", name))
			require.NoError(t, err)
			files["/component/"+name] = string(data)
		}
		for name, content := range files {
			require.NoError(t, fs.WriteFile(name, []byte(content)))
		}
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, "/shop")
		if err != nil {
			return nil, err
		}
		manifest, err := resources.AsYaml()
		require.NoError(t, err)
		objects, err := decode(manifest)
		require.NoError(t, err)
		return deployment(t, objects), nil
	}

	d, err := render(t, shop)
	require.NoError(t, err)
	pod := d.Spec.Template.Spec
	app := pod.Containers[0]
	assert.Nil(t, pod.AutomountServiceAccountToken, "it may ask the API")
	assert.Equal(t, int64(101), *pod.SecurityContext.RunAsUser)
	assert.Equal(t, int64(102), *app.SecurityContext.RunAsUser)
	assert.Equal(t, int64(60), *pod.TerminationGracePeriodSeconds)
	env := map[string]string{}
	for _, e := range app.Env {
		env[e.Name] = e.Value // the last one, as Kubernetes takes it
	}
	assert.Equal(t, "file:///tmp/ready", env["CLEANIMG_INIT_STARTUP_CHECK"])
	assert.Equal(t, "58s", env["CLEANIMG_INIT_GRACE_PERIOD"])
	assert.Equal(t, "5s", env["CLEANIMG_INIT_DRAIN_DELAY"])
	var mounts, volumes, before []string
	for _, m := range app.VolumeMounts {
		mounts = append(mounts, m.MountPath)
	}
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, c := range pod.InitContainers {
		before = append(before, c.Name)
	}
	assert.ElementsMatch(t, []string{"/tmp", "/cleanimg-init"}, mounts)
	assert.ElementsMatch(t, []string{"tmp", "cleanimg-init"}, volumes)
	assert.ElementsMatch(t, []string{"own", "cleanimg-init"}, before)

	for _, list := range []string{"command", "ports", "env", "volumeMounts"} {
		without := regexp.MustCompile("(?m)^        "+list+":.*\n").ReplaceAllString(shop, "")
		require.NotEqual(t, shop, without)
		_, err := render(t, without)
		assert.ErrorContains(t, err, "/containers/0/"+list, "without %s", list)
	}
}

func TestHelm(t *testing.T) {
	manifest, err := helm(t, nil)
	require.NoError(t, err)
	objects, err := decode([]byte(manifest))
	require.NoError(t, err)
	checkObjects(t, objects)
	compare(t, "helm", manifest)
	pod := deployment(t, objects).Spec.Template.Spec
	var names []string
	for _, c := range pod.InitContainers {
		names = append(names, c.Name)
	}
	assert.Equal(t, []string{"wait", "migrate", "config"}, names)
	assert.Equal(t, int64(30), *pod.TerminationGracePeriodSeconds)
}

// The values reach the pod, and what is missing is named.
func TestHelmValues(t *testing.T) {
	with := func(t *testing.T, init map[string]any) *appsv1.Deployment {
		t.Helper()
		manifest, err := helm(t, init)
		require.NoError(t, err)
		objects, err := decode([]byte(manifest))
		require.NoError(t, err)
		return deployment(t, objects)
	}
	t.Run("grace", func(t *testing.T) {
		d := with(t, map[string]any{"gracePeriod": 60, "drainDelay": "15s", "port": 10102})
		assert.Equal(t, int64(60), *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		env := variables(d)
		assert.Equal(t, "58s", env["CLEANIMG_INIT_GRACE_PERIOD"])
		assert.Equal(t, "15s", env["CLEANIMG_INIT_DRAIN_DELAY"])
		assert.Equal(t, ":10102", env["CLEANIMG_INIT_HTTP_LISTEN"])
		checkSecurity(t, &d.Spec.Template)
	})
	t.Run("no init container", func(t *testing.T) {
		d := with(t, map[string]any{"wait": nil, "migrate": nil, "config": nil})
		assert.Empty(t, d.Spec.Template.Spec.InitContainers)
		checkEntrypoint(t, d.Spec.Template.Spec.Containers[0])
		checkGrace(t, &d.Spec.Template.Spec)
	})
	t.Run("no drain", func(t *testing.T) {
		d := with(t, map[string]any{"gracePeriod": 5, "drainDelay": 0})
		assert.Equal(t, "0", variables(d)["CLEANIMG_INIT_DRAIN_DELAY"])
	})
	for name, init := range map[string]map[string]any{
		"cleanimgInit.image":          {"image": nil},
		"cleanimgInit.startup":        {"startup": nil},
		"cleanimgInit.gracePeriod":    {"gracePeriod": 2},
		"cleanimgInit.drainDelay":     {"drainDelay": "soon"},
		"cleanimgInit.config.output":  {"config": map[string]any{"templates": "x", "output": nil}},
		"migrate.databaseSecret.name": {"migrate": map[string]any{"databaseSecret": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := helm(t, init)
			assert.ErrorContains(t, err, name)
		})
	}
}

// A drain delay that does not fit would end the container with 125, again and
// again: it is not rendered.
func TestHelmGrace(t *testing.T) {
	for pod := 5; pod <= 40; pod++ {
		period := time.Duration(pod-2) * time.Second
		rest := period - min(period/4, 5*time.Second) // supervisor.Config.mainGrace
		for _, drain := range []string{"5s", "15", "2500ms", "1m"} {
			delay, err := time.ParseDuration(drain)
			if err != nil {
				delay = duration(t, drain+"s")
			}
			_, err = helm(t, map[string]any{"gracePeriod": pod, "drainDelay": drain})
			if delay < rest {
				assert.NoError(t, err, "%d s, drain %s", pod, drain)
			} else {
				assert.ErrorContains(t, err, "cleanimgInit.drainDelay: "+drain+" does not fit", "%d s", pod)
			}
		}
	}
	_, err := helm(t, map[string]any{"gracePeriod": 8, "drainDelay": nil})
	assert.ErrorContains(t, err, "cleanimgInit.drainDelay: 5s does not fit into 8 seconds of gracePeriod; less than 4.5s would")
	_, err = helm(t, map[string]any{"gracePeriod": 9, "drainDelay": nil})
	assert.NoError(t, err)
}

// The page shows the values of the example as they are, and has every value
// that the chart's own description has.
func TestHelmDocs(t *testing.T) {
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	require.NoError(t, err)
	values, err := os.ReadFile("../../helm/app/values.yaml")
	require.NoError(t, err)
	_, values, _ = bytes.Cut(values, []byte("\ncleanimgInit:"))
	assert.Contains(t, string(page), "```yaml\ncleanimgInit:"+string(values)+"```")

	chart, err := os.ReadFile("../../helm/cleanimg-init/templates/_pod.tpl")
	require.NoError(t, err)
	read := map[string]bool{}
	for _, use := range regexp.MustCompile(`\$init\.([a-zA-Z]+)`).FindAllSubmatch(chart, -1) {
		read[string(use[1])] = true
	}
	require.Contains(t, read, "waitEnv")
	for name := range read {
		assert.Contains(t, string(page), "`"+name+"`", "docs/kubernetes.md")
		assert.Regexp(t, `(?m)^  (\w+, )?`+name+`\b`, string(chart), "the chart's header")
	}
}

// What the pod says itself stays.
func TestHelmPod(t *testing.T) {
	with := func(t *testing.T, pod string, init map[string]any) (*appsv1.Deployment, error) {
		t.Helper()
		manifest, err := helmPod(t, pod, init)
		if err != nil {
			return nil, err
		}
		objects, err := decode([]byte(manifest))
		require.NoError(t, err)
		return deployment(t, objects), nil
	}
	probes := func(d *appsv1.Deployment) (ports []int32) {
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			if p.Name == "probes" {
				ports = append(ports, p.ContainerPort)
			}
		}
		return ports
	}
	t.Run("grace period", func(t *testing.T) {
		const pod = "terminationGracePeriodSeconds: 90\ncontainers: [{name: app, image: app}]"
		d, err := with(t, pod, map[string]any{"gracePeriod": nil})
		require.NoError(t, err)
		assert.Equal(t, int64(90), *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		assert.Equal(t, "88s", variables(d)["CLEANIMG_INIT_GRACE_PERIOD"])
		d, err = with(t, pod, map[string]any{"gracePeriod": 45})
		require.NoError(t, err)
		assert.Equal(t, int64(45), *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		d, err = with(t, "containers: [{name: app, image: app}]", map[string]any{"gracePeriod": nil})
		require.NoError(t, err)
		assert.Equal(t, int64(30), *d.Spec.Template.Spec.TerminationGracePeriodSeconds)
		// Its own numbers are its own affair.
		d, err = with(t, "containers: [{name: app, image: app, env: [{name: CLEANIMG_INIT_DRAIN_DELAY, value: 1s}]}]", map[string]any{"gracePeriod": 6})
		require.NoError(t, err)
		assert.Equal(t, "1s", variables(d)["CLEANIMG_INIT_DRAIN_DELAY"])
	})
	t.Run("port", func(t *testing.T) {
		for pod, want := range map[string]int32{
			"containers: [{name: app, image: app}]":                                                              10101,
			"containers: [{name: app, image: app, ports: [{name: probes, containerPort: 9000}]}]":                9000,
			"containers: [{name: app, image: app, env: [{name: CLEANIMG_INIT_HTTP_LISTEN, value: \":10109\"}]}]": 10109,
		} {
			d, err := with(t, pod, nil)
			require.NoError(t, err)
			assert.Equal(t, []int32{want}, probes(d), pod)
			checkEntrypoint(t, d.Spec.Template.Spec.Containers[0])
			checkGrace(t, &d.Spec.Template.Spec)
		}
		_, err := with(t, "containers: [{name: app, image: app, ports: [{name: probes, containerPort: 9000}], env: [{name: CLEANIMG_INIT_HTTP_LISTEN, value: \":10109\"}]}]", nil)
		assert.ErrorContains(t, err, `CLEANIMG_INIT_HTTP_LISTEN=:10109 is not its port "probes", 9000`)
		_, err = with(t, "containers: [{name: app, image: app, env: [{name: CLEANIMG_INIT_HTTP_LISTEN, value: \"off\"}]}]", nil)
		assert.ErrorContains(t, err, "CLEANIMG_INIT_HTTP_LISTEN=off has no port for the probes")
	})
	t.Run("probe, security, init container", func(t *testing.T) {
		d, err := with(t, `
securityContext: {runAsUser: 101}
initContainers: [{name: own, image: own}]
containers: [{name: app, image: app, livenessProbe: {tcpSocket: {port: 8080}}, securityContext: {readOnlyRootFilesystem: false}}]`, nil)
		require.NoError(t, err)
		pod := d.Spec.Template.Spec
		assert.NotNil(t, pod.Containers[0].LivenessProbe.TCPSocket)
		assert.Nil(t, pod.Containers[0].LivenessProbe.HTTPGet)
		assert.False(t, *pod.Containers[0].SecurityContext.ReadOnlyRootFilesystem)
		assert.Equal(t, []corev1.Capability{"ALL"}, pod.Containers[0].SecurityContext.Capabilities.Drop)
		assert.Equal(t, int64(101), *pod.SecurityContext.RunAsUser)
		assert.Equal(t, corev1.FSGroupChangeOnRootMismatch, *pod.SecurityContext.FSGroupChangePolicy)
		assert.Equal(t, "own", pod.InitContainers[len(pod.InitContainers)-1].Name)
	})
}

// variables are those of the application.
func variables(d *appsv1.Deployment) map[string]string {
	env := map[string]string{}
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		env[e.Name] = e.Value
	}
	return env
}

// helm renders the chart with changed values of the library, as "helm template
// demo" does.
func helm(t *testing.T, init map[string]any) (string, error) {
	t.Helper()
	return helmPod(t, "", init)
}

// helmPod does that with another pod in the place of the chart's.
func helmPod(t *testing.T, pod string, init map[string]any) (string, error) {
	t.Helper()
	chart, err := loader.LoadDir("../../helm/app")
	require.NoError(t, err)
	require.Len(t, chart.Dependencies(), 1, "the library")
	if pod != "" {
		for _, file := range chart.Templates {
			file.Data = regexp.MustCompile(`(?s)({{- define "app.pod" -}}\n).*?(\n{{- end -}}\n)`).ReplaceAll(file.Data, []byte("${1}"+pod+"${2}"))
		}
	}
	values := map[string]any{}
	if init != nil {
		values["cleanimgInit"] = init
	}
	all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "demo", Namespace: "default", IsInstall: true}, common.DefaultCapabilities)
	require.NoError(t, err)
	files, err := engine.Render(chart, all)
	if err != nil {
		return "", err
	}
	var documents []string
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") && strings.TrimSpace(text) != "" {
			documents = append(documents, strings.TrimSpace(text)+"\n")
		}
	}
	slices.Sort(documents)
	return strings.Join(documents, "---\n"), nil
}

func deployment(t *testing.T, objects []runtime.Object) *appsv1.Deployment {
	t.Helper()
	for _, object := range objects {
		if d, ok := object.(*appsv1.Deployment); ok {
			return d
		}
	}
	require.Fail(t, "no Deployment")
	return nil
}
