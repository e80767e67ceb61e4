{{/* Differences between the four services: location of their values, section of the configuration, ports, callers, the programs' own
stop deadline in addition to the values, and the secrets they need. */}}
{{- define "godwit.services" -}}
ws-gateway:
  values: gateway
  section: gateway
  ports: { http: 7450, grpc: 7451, admin: 7459 }
  calledBy: { grpc: [pusher, ws-gateway] }
  servers: [kafka, redis]
  secrets: [redis, operator, signing]
  headless: true
consumer:
  values: consumer
  section: consumer
  ports: { grpc: 7461, admin: 7469 }
  calledBy: {}
  servers: [kafka, redis]
  secrets: [redis, operator]
  stopSeconds: 25
db-service:
  values: dbService
  section: db
  ports: { grpc: 7471, admin: 7479 }
  calledBy: { grpc: [ws-gateway, consumer] }
  servers: [postgres]
  secrets: [postgres, operator]
  stopSeconds: 15
  headless: true
pusher:
  values: pusher
  section: pusher
  ports: { grpc: 7481, admin: 7489 }
  calledBy: { grpc: [ws-gateway, consumer] }
  servers: [redis]
  secrets: [redis, operator]
  stopSeconds: 15
  headless: true
{{- end }}

{{- define "godwit.name" -}}
{{- if contains "godwit" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-godwit" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "godwit.selector" -}}
app.kubernetes.io/name: godwit
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "godwit.labels" -}}
{{ include "godwit.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Location of a secret, `name` and `key`: from the values or of the trial server. */}}
{{- define "godwit.secret" -}}
{{- $given := index .root.Values.secrets .which }}
{{- $tryout := index .root.Values.tryout .which | default dict }}
{{- if $given.name }}
{{- toYaml (dict "name" $given.name "key" $given.key) }}
{{- else if $tryout.enabled }}
{{- toYaml (dict "name" (printf "%s-%s" (include "godwit.name" .root) .which) "key" "url") }}
{{- else if ne .which "operator" }}
{{- fail (printf "secrets.%s.name: name the Secret with the address, or set tryout.%s.enabled" .which .which) }}
{{- end }}
{{- end }}

{{/* All secrets of a service: setting, file name, prefix of the content, and location. */}}
{{- define "godwit.secrets" -}}
{{- $root := .root }}
{{- $name := .name }}
{{- $settings := dict "postgres" "db.postgres" "redis" "redis.url" "operator" "operator.token" }}
{{- $found := list }}
{{- range $which := .service.secrets }}
{{- if eq $which "signing" }}
{{- range $root.Values.secrets.signing }}
{{- $found = append $found (dict "setting" "auth.keys" "before" (printf "%s=" .id) "file" (printf "signing-%s" .id) "name" .name "key" .key) }}
{{- end }}
{{- else }}
{{- with include "godwit.secret" (dict "root" $root "which" $which) | fromYaml }}
{{- $found = append $found (dict "setting" (get $settings $which) "before" "" "file" $which "name" .name "key" .key) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $root.Values.secrets.others }}
{{- if has $name .services }}
{{- $found = append $found (dict "setting" .setting "before" "" "file" (.setting | replace "." "-" | replace "_" "-") "name" .name "key" .key) }}
{{- end }}
{{- end }}
{{- toYaml (dict "found" $found) }}
{{- end }}

{{/* terminationGracePeriodSeconds: preStop, the stop itself, and a margin of 5 s. */}}
{{- define "godwit.graceSeconds" -}}
{{- $stop := .service.stopSeconds | default (add 27 (int (.values.drainSeconds | default 0)) | int) }}
{{- add (int .values.preStopSeconds) (int $stop) 5 }}
{{- end }}
