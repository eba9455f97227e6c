{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /*
cleanimg-init.pod adds to a pod spec what cleanimg-init needs, and prints it:

    spec: {{- include "cleanimg-init.pod" (dict "init" .Values.cleanimgInit "pod" $pod) | nindent 6 }}

The first container is the application, with cleanimg-init as the ENTRYPOINT of its
image. What the pod says itself wins: init containers of its own come after ours, a
probe or a variable that is there stays.

  image        of cleanimg-init and the tools; required
  wait         services for await; waitTimeout, 5m
  migrate      {image, source, databaseSecret: {name, key}}
  config       {templates: a ConfigMap, output: the directory, environment, env}
  startup, liveness, readiness   the checks; startup is required, the others default to it
  port         of the probes, 10101
  gracePeriod  terminationGracePeriodSeconds, 30; drainDelay, 5s
*/ -}}
{{- define "cleanimg-init.pod" -}}
{{- $init := .init -}}
{{- $pod := deepCopy .pod -}}
{{- $grace := int ($init.gracePeriod | default 30) -}}
{{- if lt $grace 5 }}{{ fail (printf "cleanimgInit.gracePeriod: %d seconds are too few; at least 5" $grace) }}{{ end -}}
{{- $_ := set $pod "terminationGracePeriodSeconds" $grace -}}
{{- $_ := set $pod "securityContext" (mergeOverwrite (fromYaml (include "cleanimg-init.podSecurity" .)) ($pod.securityContext | default dict)) -}}
{{- $_ := set $pod "initContainers" (concat (fromYamlArray (include "cleanimg-init.initContainers" .)) ($pod.initContainers | default list)) -}}
{{- $app := first $pod.containers -}}
{{- $names := list -}}
{{- range $app.env }}{{ $names = append $names .name }}{{ end -}}
{{- $env := $app.env | default list -}}
{{- range fromYamlArray (include "cleanimg-init.env" .) -}}
{{- if not (has .name $names) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- $_ := set $app "env" $env -}}
{{- $port := int ($init.port | default 10101) -}}
{{- $_ := set $app "ports" (append ($app.ports | default list) (dict "name" "probes" "containerPort" $port)) -}}
{{- range $name, $probe := fromYaml (include "cleanimg-init.probes" .) -}}
{{- if not (hasKey $app $name) }}{{ $_ := set $app $name $probe }}{{ end -}}
{{- end -}}
{{- $_ := set $app "securityContext" (mergeOverwrite (fromYaml (include "cleanimg-init.containerSecurity" .)) ($app.securityContext | default dict)) -}}
{{- with $init.config -}}
{{- $_ := set $app "volumeMounts" (append ($app.volumeMounts | default list) (dict "name" "cleanimg-config" "mountPath" .output "readOnly" true)) -}}
{{- end -}}
{{- $volumes := fromYamlArray (include "cleanimg-init.volumes" .) -}}
{{- if $volumes }}{{ $_ := set $pod "volumes" (concat ($pod.volumes | default list) $volumes) }}{{ end -}}
{{- toYaml $pod -}}
{{- end -}}

{{- define "cleanimg-init.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "cleanimg-init.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "cleanimg-init.env" -}}
{{- $init := .init -}}
{{- $startup := required "cleanimgInit.startup: a check such as tcp://127.0.0.1:8080" $init.startup -}}
{{- /* Two seconds for the kubelet, so that the explanation is ours. */ -}}
- {name: CLEANIMG_INIT_GRACE_PERIOD, value: {{ printf "%ds" (sub (int ($init.gracePeriod | default 30)) 2) | quote }}}
- {name: CLEANIMG_INIT_DRAIN_DELAY, value: {{ $init.drainDelay | default "5s" | quote }}}
- {name: CLEANIMG_INIT_HTTP_LISTEN, value: {{ printf ":%d" (int ($init.port | default 10101)) | quote }}}
- {name: CLEANIMG_INIT_STARTUP_CHECK, value: {{ $startup | quote }}}
- {name: CLEANIMG_INIT_LIVENESS_CHECK, value: {{ $init.liveness | default $startup | quote }}}
- {name: CLEANIMG_INIT_READINESS_CHECK, value: {{ $init.readiness | default $startup | quote }}}
{{- end -}}

{{- define "cleanimg-init.probes" -}}
startupProbe: {httpGet: {path: /health/startup, port: probes}, periodSeconds: 1, failureThreshold: 600}
livenessProbe: {httpGet: {path: /health/live, port: probes}, periodSeconds: 10, timeoutSeconds: 5}
readinessProbe: {httpGet: {path: /health/ready, port: probes}, periodSeconds: 5, failureThreshold: 1}
{{- end -}}

{{- define "cleanimg-init.volumes" -}}
{{- with .init.config }}
- {name: cleanimg-templates, configMap: {name: {{ required "cleanimgInit.config.templates: the name of a ConfigMap" .templates | quote }}}}
- {name: cleanimg-config, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
{{- end }}
{{- end -}}

{{- define "cleanimg-init.initContainers" -}}
{{- $init := .init -}}
{{- $image := required "cleanimgInit.image: the image of cleanimg-init" $init.image -}}
{{- $security := include "cleanimg-init.containerSecurity" . -}}
{{- with $init.wait }}
- name: wait
  image: {{ $image | quote }}
  command: [/usr/local/bin/await]
  args:
  {{- range . }}
  - {{ printf "--service=%s" . | quote }}
  {{- end }}
  - --timeout={{ $init.waitTimeout | default "5m" }}
  resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 64Mi}}
  securityContext: {{- $security | nindent 4 }}
{{- end }}
{{- with $init.migrate }}
- name: migrate
  image: {{ .image | default $image | quote }}
  command: [/usr/local/bin/migrate]
  args: ["--source={{ .source | default "file:///migrations" }}", --wait=2m, up]
  env:
  - name: DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ required "cleanimgInit.migrate.databaseSecret.name" (.databaseSecret).name | quote }}, key: {{ (.databaseSecret).key | default "url" | quote }}}}
  {{- with .volumeMounts }}
  volumeMounts: {{- toYaml . | nindent 4 }}
  {{- end }}
  resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 256Mi}}
  securityContext: {{- $security | nindent 4 }}
{{- end }}
{{- with $init.config }}
- name: config
  image: {{ $image | quote }}
  command: [/usr/local/bin/generate-config, --output-dir, {{ required "cleanimgInit.config.output: a directory" .output | quote }}]
  {{- with .environment }}
  args: [--environment, {{ . | quote }}]
  {{- end }}
  {{- with .env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - {name: cleanimg-templates, mountPath: /templates}
  - {name: cleanimg-config, mountPath: {{ .output | quote }}}
  resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 128Mi}}
  securityContext: {{- $security | nindent 4 }}
{{- end }}
{{- end -}}
