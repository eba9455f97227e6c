// SPDX-License-Identifier: Apache-2.0

package check

import (
	"flag"
	"os"
	"path/filepath"
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
