// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// checkYAML judges YAML by what it is: a step file, a manifest of Kubernetes or
// a piece of one. The files of other programs only have to be YAML.
func checkYAML(t *testing.T, text string) {
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var keys map[string]any
		require.NoError(t, yaml.UnmarshalStrict([]byte(doc), &keys), doc)
		switch {
		case keys["run"] != nil:
			checkStep(t, doc)
		case keys["kind"] != nil:
			_, _, err := manifests(t).UniversalDeserializer().Decode([]byte(doc), nil, nil)
			assert.NoError(t, err, doc)
		case anyOf(keys, "spec", "containers", "initContainers", "env", "startupProbe", "readinessProbe", "livenessProbe", "securityContext", "metadata", "volumes"):
			assert.NoError(t, strictly(doc, &corev1.Container{}, &corev1.PodSpec{}, &corev1.Pod{}), doc)
		}
	}
}

func anyOf(keys map[string]any, names ...string) bool {
	for _, name := range names {
		if keys[name] != nil {
			return true
		}
	}
	return false
}

// manifests decodes whole objects, and knows every field of them.
func manifests(t *testing.T) serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme} {
		require.NoError(t, add(scheme))
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
}

// strictly decodes a piece of a manifest into one of several types. Without an
// error all its fields are fields of that type.
func strictly(doc string, types ...any) error {
	data, err := yaml.YAMLToJSONStrict([]byte(doc))
	if err != nil {
		return err
	}
	var problems []error
	for _, into := range types {
		unknown, err := json.UnmarshalStrict(data, into)
		if err == nil && len(unknown) == 0 {
			return nil
		}
		problems = append(problems, fmt.Errorf("as %T: %w", into, errors.Join(append(unknown, err)...)))
	}
	return errors.Join(problems...)
}

func TestStrictly(t *testing.T) {
	assert.NoError(t, strictly("containers: [{name: a, image: b}]", &corev1.Container{}, &corev1.PodSpec{}))
	assert.ErrorContains(t, strictly("containers: [{name: a, imagee: b}]", &corev1.PodSpec{}), "imagee")
}
