// SPDX-License-Identifier: Apache-2.0

package check

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

var kubectlSecret = regexp.MustCompile(`(?m)^#   kubectl create secret \w+ (\S+)`)

func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	page, err := os.ReadFile("../../../docs/kubernetes.md")
	require.NoError(t, err)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			objects, err := decode(data)
			require.NoError(t, err)
			var made []string // by whoever applies it, as the manifest says
			for _, line := range kubectlSecret.FindAllSubmatch(data, -1) {
				made = append(made, string(line[1]))
			}
			checkObjects(t, objects, made...)
			assert.Regexp(t, `(?m)\A(#.*\n)*# Needs: `, string(data), "the header says what has to be there")
			assert.Regexp(t, regexp.QuoteMeta("kubernetes/"+filepath.Base(file)), string(page), "docs/kubernetes.md")
		})
	}
}

// What the checks below rely on: that a mistake is one.
func TestStrictDecoding(t *testing.T) {
	for name, manifest := range map[string]string{
		"unknown field": "apiVersion: v1\nkind: Pod\nspec: {container: []}\n",
		"twice":         "apiVersion: v1\nkind: Pod\nspec: {hostname: a, hostname: b}\n",
		"wrong type":    "apiVersion: v1\nkind: Pod\nspec: {hostPID: maybe}\n",
		"unknown kind":  "apiVersion: v1\nkind: Pot\n",
	} {
		_, err := decode([]byte(manifest))
		assert.Error(t, err, name)
	}
}

// A workload is an object with a template of pods.
type workload struct {
	kind     string
	selector *metav1.LabelSelector
	template *corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
}

// checkObjects wants workloads among the objects, and everything that they
// refer to: ConfigMaps, Secrets but those that were made otherwise, and claims.
func checkObjects(t *testing.T, objects []runtime.Object, secrets ...string) {
	t.Helper()
	named := map[string]bool{}
	for _, name := range secrets {
		named["secret "+name] = true
	}
	var workloads []workload
	for _, object := range objects {
		switch o := object.(type) {
		case *corev1.ConfigMap:
			named["configMap "+o.Name] = true
		case *corev1.Secret:
			named["secret "+o.Name] = true
		case *corev1.PersistentVolumeClaim:
			named["claim "+o.Name] = true
		case *appsv1.Deployment:
			checkDeployment(t, o)
			workloads = append(workloads, workload{kind: o.Kind, selector: o.Spec.Selector, template: &o.Spec.Template})
		case *appsv1.StatefulSet:
			checkFSGroup(t, &o.Spec.Template.Spec)
			workloads = append(workloads, workload{kind: o.Kind, selector: o.Spec.Selector, template: &o.Spec.Template, claims: o.Spec.VolumeClaimTemplates})
		}
	}
	require.NotEmpty(t, workloads)
	for _, w := range workloads {
		pod := &w.template.Spec
		checkSecurity(t, w.template)
		checkReferences(t, pod, named, w.claims)
		for _, c := range pod.InitContainers {
			assert.NotEmpty(t, c.Resources.Requests, "%s: requests", c.Name)
			if c.RestartPolicy != nil {
				assert.NotNil(t, c.StartupProbe, "%s: what comes next starts when it has passed", c.Name)
			}
		}
		assert.Equal(t, w.selector.MatchLabels, w.template.Labels)
		checkGrace(t, pod)
		for _, c := range pod.Containers {
			checkEntrypoint(t, c)
			if w.kind == "Deployment" {
				checkDrain(t, c)
			}
		}
	}
}

// checkDeployment wants what matters when a Deployment is updated.
func checkDeployment(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	pod := &d.Spec.Template.Spec
	if waits(pod) {
		require.NotNil(t, d.Spec.ProgressDeadlineSeconds, "it waits: 600 s may be too few")
		assert.GreaterOrEqual(t, *d.Spec.ProgressDeadlineSeconds, int32(1800))
	}
	if slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil }) {
		assert.Equal(t, appsv1.RecreateDeploymentStrategyType, d.Spec.Strategy.Type, "the volume is on one node")
		checkFSGroup(t, pod)
	}
}

// checkFSGroup wants a pod with a volume that outlives it to start as quickly
// when the volume has many files.
func checkFSGroup(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	require.NotNil(t, pod.SecurityContext.FSGroupChangePolicy)
	assert.Equal(t, corev1.FSGroupChangeOnRootMismatch, *pod.SecurityContext.FSGroupChangePolicy)
}

// waits says whether an init container waits for another service.
func waits(pod *corev1.PodSpec) bool {
	for _, c := range pod.InitContainers {
		words := slices.Concat(c.Command, c.Args)
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasSuffix(w, "/await") || strings.HasSuffix(w, "/migrate") }) &&
			!slices.Contains(words, "--once") {
			return true
		}
	}
	return false
}

// graceOf is how long a pod may take to end, in seconds.
func graceOf(pod *corev1.PodSpec) int64 {
	if pod.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds
	}
	return *pod.TerminationGracePeriodSeconds
}

// checkSecurity asks the admission plugin for Pod Security, and wants a
// read-only root besides.
func checkSecurity(t *testing.T, pod *corev1.PodTemplateSpec) {
	t.Helper()
	allowed, why := restricted(t, &pod.ObjectMeta, &pod.Spec)
	assert.True(t, allowed, why)
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		require.NotNil(t, c.SecurityContext, c.Name)
		require.NotNil(t, c.SecurityContext.ReadOnlyRootFilesystem, c.Name)
		assert.True(t, *c.SecurityContext.ReadOnlyRootFilesystem, c.Name)
	}
}

// A privileged pod must not pass, or the check above would mean nothing.
func TestSecurityCheckRefuses(t *testing.T) {
	allowed, why := restricted(t, &metav1.ObjectMeta{}, &corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}})
	assert.False(t, allowed)
	assert.Contains(t, why, "runAsNonRoot")
}

// restricted asks the admission plugin for Pod Security whether it lets a pod
// in under the profile of that name, or else why not.
func restricted(t *testing.T, meta *metav1.ObjectMeta, pod *corev1.PodSpec) (allowed bool, why string) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, meta, pod))
	return result.Allowed, "restricted: " + result.ForbiddenReason() + ": " + result.ForbiddenDetail()
}

func checkReferences(t *testing.T, pod *corev1.PodSpec, named map[string]bool, claims []corev1.PersistentVolumeClaim) {
	t.Helper()
	volumes := map[string]bool{}
	for _, claim := range claims {
		volumes[claim.Name] = true
	}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
		switch {
		case v.ConfigMap != nil:
			assert.True(t, named["configMap "+v.ConfigMap.Name], "there is no ConfigMap %s", v.ConfigMap.Name)
		case v.Secret != nil:
			assert.True(t, named["secret "+v.Secret.SecretName], "there is no Secret %s", v.Secret.SecretName)
		case v.PersistentVolumeClaim != nil:
			assert.True(t, named["claim "+v.PersistentVolumeClaim.ClaimName], "there is no claim %s", v.PersistentVolumeClaim.ClaimName)
		}
	}
	used := map[string]bool{}
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		for _, m := range c.VolumeMounts {
			assert.True(t, volumes[m.Name], "%s mounts %s, which is no volume", c.Name, m.Name)
			used[m.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				assert.True(t, named["secret "+e.ValueFrom.SecretKeyRef.Name], "%s: there is no Secret %s", c.Name, e.ValueFrom.SecretKeyRef.Name)
			}
		}
	}
	assert.Equal(t, volumes, used, "a volume that nobody mounts")
}

// checkGrace wants what the containers may take to fit into the pod's grace
// period: the applications end at the same time, then one sidecar after another.
func checkGrace(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	period := func(c corev1.Container) time.Duration {
		return duration(t, environment(t, c)["CLEANIMG_INIT_GRACE_PERIOD"])
	}
	var all time.Duration
	for _, c := range pod.Containers {
		all = max(all, period(c))
	}
	for _, c := range pod.InitContainers {
		if c.RestartPolicy != nil {
			all += period(c)
		}
	}
	assert.Less(t, all, time.Duration(graceOf(pod))*time.Second, "the kubelet would kill before we do")
}

// checkDrain wants an application to serve until it is out of its Services.
func checkDrain(t *testing.T, c corev1.Container) {
	t.Helper()
	env := environment(t, c)
	drain := duration(t, env["CLEANIMG_INIT_DRAIN_DELAY"])
	period := duration(t, env["CLEANIMG_INIT_GRACE_PERIOD"])
	assert.Greater(t, drain, time.Duration(0), c.Name)
	assert.Less(t, drain, period-min(period/4, 5*time.Second), "%s: nothing is left for the command", c.Name)
}

func environment(t *testing.T, c corev1.Container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, e := range c.Env {
		assert.NotContains(t, env, e.Name, "%s has it twice", c.Name)
		env[e.Name] = e.Value
	}
	return env
}

// checkEntrypoint wants what docs/kubernetes.md says of an application with
// cleanimg-init as its entrypoint.
func checkEntrypoint(t *testing.T, c corev1.Container) {
	t.Helper()
	env := environment(t, c)
	for _, name := range []string{"STARTUP_CHECK", "LIVENESS_CHECK", "READINESS_CHECK"} {
		assert.NotEmpty(t, env["CLEANIMG_INIT_"+name], "%s: %s", c.Name, name)
	}
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = strconv.Itoa(int(p.ContainerPort))
	}
	listen := env["CLEANIMG_INIT_HTTP_LISTEN"]
	if listen == "" {
		listen = ":10101"
	}
	for path, probe := range map[string]*corev1.Probe{"/health/startup": c.StartupProbe, "/health/live": c.LivenessProbe, "/health/ready": c.ReadinessProbe} {
		require.NotNil(t, probe, "%s: %s", c.Name, path)
		require.NotNil(t, probe.HTTPGet, "%s: %s", c.Name, path)
		assert.Equal(t, path, probe.HTTPGet.Path, c.Name)
		assert.Equal(t, listen, ":"+ports[probe.HTTPGet.Port.StrVal], c.Name)
	}
	assert.Equal(t, int32(2), c.LivenessProbe.FailureThreshold, "%s: the check has counted failures, but a probe can get lost", c.Name)
	assert.Equal(t, int32(1), c.ReadinessProbe.FailureThreshold, "%s: the check has counted failures", c.Name)
	assert.GreaterOrEqual(t, c.ReadinessProbe.TimeoutSeconds, int32(3), "%s: one slow answer must not take it out", c.Name)
	assert.GreaterOrEqual(t, time.Duration(c.StartupProbe.FailureThreshold*max(c.StartupProbe.PeriodSeconds, 1))*time.Second, 10*time.Minute,
		"%s: a step may take 10 minutes", c.Name)
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	require.NoError(t, err)
	return d
}
