// SPDX-License-Identifier: Apache-2.0

// Package check holds the examples for Kubernetes to what the API server would
// say, and to what the documentation promises of them. It is a module of its
// own, so that nobody who builds cleanimg-init has to have Kubernetes' code.
package check

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// decode reads all objects of a manifest as the API server does with strict
// field validation: an unknown kind, an unknown field, a field that is there
// twice and a value of the wrong type are errors.
func decode(manifest []byte) ([]runtime.Object, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var objects []runtime.Object
	var problems []error
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(manifest)))
	buffer := make([]byte, 1<<20)
	for i := 1; ; i++ {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return objects, errors.Join(problems...)
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(buffer[:n], nil, nil)
		if err != nil {
			problems = append(problems, fmt.Errorf("document %d: %w", i, err))
			continue
		}
		objects = append(objects, object)
	}
}
