// SPDX-License-Identifier: Apache-2.0

package check

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
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
		env := map[string]string{}
		for _, e := range d.Spec.Template.Spec.Containers[0].Env {
			env[e.Name] = e.Value
		}
		assert.Equal(t, "58s", env["CLEANIMG_INIT_GRACE_PERIOD"])
		assert.Equal(t, "15s", env["CLEANIMG_INIT_DRAIN_DELAY"])
		assert.Equal(t, ":10102", env["CLEANIMG_INIT_HTTP_LISTEN"])
		checkSecurity(t, &d.Spec.Template)
	})
	t.Run("no init container", func(t *testing.T) {
		d := with(t, map[string]any{"wait": nil, "migrate": nil, "config": nil})
		assert.Empty(t, d.Spec.Template.Spec.InitContainers)
		checkEntrypoint(t, d.Spec.Template.Spec.Containers[0], 30)
	})
	for name, init := range map[string]map[string]any{
		"cleanimgInit.image":          {"image": nil},
		"cleanimgInit.startup":        {"startup": nil},
		"cleanimgInit.gracePeriod":    {"gracePeriod": 2},
		"cleanimgInit.config.output":  {"config": map[string]any{"templates": "x", "output": nil}},
		"migrate.databaseSecret.name": {"migrate": map[string]any{"databaseSecret": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := helm(t, init)
			assert.ErrorContains(t, err, name)
		})
	}
}

// helm renders the chart with changed values of the library, as "helm template
// demo" does.
func helm(t *testing.T, init map[string]any) (string, error) {
	t.Helper()
	chart, err := loader.LoadDir("../../helm/app")
	require.NoError(t, err)
	require.Len(t, chart.Dependencies(), 1, "the library")
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
