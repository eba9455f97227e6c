// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

var (
	fencedYAML = regexp.MustCompile("(?ms)^```yaml[^\n]*\n(.*?)^```$")
	// What is Kubernetes' begins with one of these; step files do not.
	kubernetes = regexp.MustCompile(`(?m)\A(?:#.*\n)*(apiVersion|metadata|spec|containers|initContainers|env|(startup|readiness|liveness)Probe|securityContext|volumes|automountServiceAccountToken|terminationGracePeriodSeconds):`)
)

// TestDocs decodes the manifests in the docs, and the pieces of manifests. A
// piece with containers that says something about security says all that Pod
// Security's "restricted" asks for: it is copied as it is.
func TestDocs(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	require.NoError(t, err)
	checked := 0
	for _, page := range append(pages, "../../../README.md") {
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range fencedYAML.FindAllStringSubmatch(string(text), -1) {
			switch {
			case strings.HasPrefix(block[1], "apiVersion:"):
				_, err := decode([]byte(block[1]))
				assert.NoError(t, err, "%s:\n%s", page, block[1])
			case kubernetes.MatchString(block[1]):
				assert.NoError(t, strictly(block[1], &corev1.Container{}, &corev1.PodSpec{}, &corev1.Pod{}), "%s:\n%s", page, block[1])
				checkRestricted(t, page, block[1])
			default:
				continue
			}
			checked++
		}
	}
	assert.GreaterOrEqual(t, checked, 5)
}

// checkRestricted asks the admission plugin about a piece with containers and a
// security context. One with neither is about something else.
func checkRestricted(t *testing.T, page, piece string) {
	t.Helper()
	var pod corev1.Pod
	if strictly(piece, &pod.Spec) != nil && strictly(piece, &pod) != nil {
		return // a container
	}
	if len(pod.Spec.Containers) == 0 || !strings.Contains(piece, "securityContext:") {
		return
	}
	allowed, why := restricted(t, &pod.ObjectMeta, &pod.Spec)
	assert.True(t, allowed, "%s: %s:\n%s", page, why, piece)
}

// strictly decodes a piece of a manifest into one of several types. Without an
// error all its fields are fields of that type.
func strictly(piece string, types ...any) error {
	data, err := yaml.YAMLToJSONStrict([]byte(piece))
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
