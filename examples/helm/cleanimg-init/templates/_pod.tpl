{{- /* SPDX-License-Identifier: Apache-2.0 */ -}}
{{- /*
cleanimg-init.pod adds to a pod spec what cleanimg-init needs, and prints it:

    spec: {{- include "cleanimg-init.pod" (dict "init" .Values.cleanimgInit "pod" $pod) | nindent 6 }}

The first container is the application, with cleanimg-init as the ENTRYPOINT of its
image. What the pod says itself stays: a variable, a probe, a port "probes", a line of a
security context. Init containers of its own come after ours.

  image        of cleanimg-init and the tools; required
  wait         services for await, a list of URLs
  waitTimeout  for all of them together, 5m
  waitEnv      variables of await, such as REDIS_PASSWORD from a Secret
  migrate      migrations; without it there are none
    databaseSecret  {name, key}: where the URL of the database is; required; the key is "url" where it is not said
    image           that has migrate, and perhaps the migrations; ours where it is not said
    source          file:///migrations
    volumeMounts    of the migrations; the pod has the volumes
    env             more variables, such as MIGRATE_LOCK_TIMEOUT
  config       configuration from templates; without it there is none
    templates    a ConfigMap; required
    output       the directory that the application finds it in; required
    environment  whose values count: values.ENVIRONMENT.yaml in the ConfigMap
    secrets      a Secret: templates see its keys as .Secrets.KEY, and as ${KEY}
    env          variables that the templates use
  startup      the startup check, such as tcp://127.0.0.1:8080; required
  liveness, readiness   the other checks; that of the startup where they are not said
  port         of the probes, 10101; that of the pod's own HTTP_LISTEN, or of its port "probes", comes first
  gracePeriod  terminationGracePeriodSeconds, in seconds, at least 5; else the pod's own, else 30
  drainDelay   from readiness false to the application's signal, 5s; 0 is none
*/ -}}
{{- define "cleanimg-init.pod" -}}
{{- $init := .init -}}
{{- $pod := deepCopy .pod -}}
{{- $app := first $pod.containers -}}
{{- $own := dict -}}
{{- range $app.env }}{{ $_ := set $own .name (.value | default "" | toString) }}{{ end -}}

{{- $grace := int ($init.gracePeriod | default $pod.terminationGracePeriodSeconds | default 30) -}}
{{- if lt $grace 5 }}{{ fail (printf "cleanimgInit.gracePeriod: %d seconds are too few; at least 5" $grace) }}{{ end -}}
{{- $_ := set $pod "terminationGracePeriodSeconds" $grace -}}
{{- $drain := "5s" -}}
{{- if not (kindIs "invalid" $init.drainDelay) }}{{ $drain = toString $init.drainDelay }}{{ end -}}
{{- include "cleanimg-init.checkGrace" (dict "grace" $grace "drain" $drain "own" $own) -}}

{{- $port := int ($init.port | default 10101) -}}
{{- $named := false -}}
{{- range $app.ports }}{{ if eq (.name | default "") "probes" }}{{ $named = true }}{{ $port = int .containerPort }}{{ end }}{{ end -}}
{{- with $own.CLEANIMG_INIT_HTTP_LISTEN -}}
{{- $listens := regexFind "[0-9]+$" . -}}
{{- if not $listens }}{{ fail (printf "the pod's CLEANIMG_INIT_HTTP_LISTEN=%s has no port for the probes" .) }}{{ end -}}
{{- if and $named (ne $port (int $listens)) }}{{ fail (printf "the pod's CLEANIMG_INIT_HTTP_LISTEN=%s is not its port \"probes\", %d" . $port) }}{{ end -}}
{{- $port = int $listens -}}
{{- end -}}
{{- if not $named }}{{ $_ := set $app "ports" (append ($app.ports | default list) (dict "name" "probes" "containerPort" $port)) }}{{ end -}}

{{- $env := $app.env | default list -}}
{{- range fromYamlArray (include "cleanimg-init.env" (dict "init" $init "grace" $grace "drain" $drain "port" $port)) -}}
{{- if not (hasKey $own .name) }}{{ $env = append $env . }}{{ end -}}
{{- end -}}
{{- $_ := set $app "env" $env -}}
{{- range $name, $probe := fromYaml (include "cleanimg-init.probes" .) -}}
{{- if not (hasKey $app $name) }}{{ $_ := set $app $name $probe }}{{ end -}}
{{- end -}}

{{- $_ := set $pod "securityContext" (mergeOverwrite (fromYaml (include "cleanimg-init.podSecurity" .)) ($pod.securityContext | default dict)) -}}
{{- $_ := set $app "securityContext" (mergeOverwrite (fromYaml (include "cleanimg-init.containerSecurity" .)) ($app.securityContext | default dict)) -}}
{{- with $init.config -}}
{{- $_ := set $app "volumeMounts" (append ($app.volumeMounts | default list) (dict "name" "cleanimg-config" "mountPath" .output "readOnly" true)) -}}
{{- end -}}
{{- $_ := set $pod "initContainers" (concat (fromYamlArray (include "cleanimg-init.initContainers" .)) ($pod.initContainers | default list)) -}}
{{- $volumes := fromYamlArray (include "cleanimg-init.volumes" .) -}}
{{- if $volumes }}{{ $_ := set $pod "volumes" (concat ($pod.volumes | default list) $volumes) }}{{ end -}}
{{- toYaml $pod -}}
{{- end -}}

{{- /*
cleanimg-init.checkGrace fails where cleanimg-init would refuse to start: of its grace
period, which is two seconds under the pod's, a quarter, at most 5 s, is kept for the end,
and the drain delay has to be shorter than the rest. Where the pod states one of the two
itself, that is its affair.
*/ -}}
{{- define "cleanimg-init.checkGrace" -}}
{{- if not (or (hasKey .own "CLEANIMG_INIT_GRACE_PERIOD") (hasKey .own "CLEANIMG_INIT_DRAIN_DELAY")) -}}
{{- if not (regexMatch "^([0-9.]+(ns|us|ms|s|m|h))*([0-9.]+)?$" .drain) }}{{ fail (printf "cleanimgInit.drainDelay: %s is no duration such as 5s" .drain) }}{{ end -}}
{{- $start := now -}}
{{- $drain := (($start | mustDateModify (regexReplaceAll "^[0-9.]+$" .drain "${0}s")).Sub $start).Seconds -}}
{{- $period := sub .grace 2 -}}
{{- $rest := subf $period (divf $period 4) -}}
{{- if gt $period 20 }}{{ $rest = subf $period 5 }}{{ end -}}
{{- if ge (float64 $drain) (float64 $rest) -}}
{{- fail (printf "cleanimgInit.drainDelay: %s does not fit into %d seconds of gracePeriod; less than %vs would" .drain .grace $rest) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "cleanimg-init.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
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
- {name: CLEANIMG_INIT_GRACE_PERIOD, value: {{ printf "%ds" (sub .grace 2) | quote }}}
- {name: CLEANIMG_INIT_DRAIN_DELAY, value: {{ .drain | quote }}}
- {name: CLEANIMG_INIT_HTTP_LISTEN, value: {{ printf ":%d" .port | quote }}}
- {name: CLEANIMG_INIT_STARTUP_CHECK, value: {{ $startup | quote }}}
- {name: CLEANIMG_INIT_LIVENESS_CHECK, value: {{ $init.liveness | default $startup | quote }}}
- {name: CLEANIMG_INIT_READINESS_CHECK, value: {{ $init.readiness | default $startup | quote }}}
{{- end -}}

{{- define "cleanimg-init.probes" -}}
startupProbe: {httpGet: {path: /health/startup, port: probes}, periodSeconds: 1, failureThreshold: 600}
livenessProbe: {httpGet: {path: /health/live, port: probes}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 2}  # not 1: one probe can get lost
readinessProbe: {httpGet: {path: /health/ready, port: probes}, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 1}
{{- end -}}

{{- define "cleanimg-init.volumes" -}}
{{- with .init.config }}
- {name: cleanimg-templates, configMap: {name: {{ required "cleanimgInit.config.templates: the name of a ConfigMap" .templates | quote }}}}
- {name: cleanimg-config, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
{{- with .secrets }}
- {name: cleanimg-secrets, secret: {secretName: {{ . | quote }}}}
{{- end }}
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
  {{- with $init.waitEnv }}
  env: {{- toYaml . | nindent 2 }}
  {{- end }}
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
  {{- with .env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with .volumeMounts }}
  volumeMounts: {{- toYaml . | nindent 2 }}
  {{- end }}
  resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 256Mi}}
  securityContext: {{- $security | nindent 4 }}
{{- end }}
{{- with $init.config }}
- name: config
  image: {{ $image | quote }}
  command: [/usr/local/bin/generate-config]
  args:
  - {{ printf "--output-dir=%s" (required "cleanimgInit.config.output: a directory" .output) | quote }}
  {{- with .environment }}
  - {{ printf "--environment=%s" . | quote }}
  {{- end }}
  {{- if .secrets }}
  - --secrets-dir=/run/secrets/app
  {{- end }}
  {{- with .env }}
  env: {{- toYaml . | nindent 2 }}
  {{- end }}
  volumeMounts:
  - {name: cleanimg-templates, mountPath: /templates}
  {{- if .secrets }}
  - {name: cleanimg-secrets, mountPath: /run/secrets/app, readOnly: true}
  {{- end }}
  - {name: cleanimg-config, mountPath: {{ .output | quote }}}
  resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 128Mi}}
  securityContext: {{- $security | nindent 4 }}
{{- end }}
{{- end -}}
