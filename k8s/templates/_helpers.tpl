{{/* Refuse values that the schema cannot refuse. */}}
{{- define "exchange.check" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]{0,29}$" .Release.Name) }}
{{- fail "the release's name: a letter, then letters, digits and dashes, 30 at most" }}
{{- end }}
{{- if not .Values.markets }}
{{- fail "markets: name at least one, see values.yaml" }}
{{- end }}
{{- end }}

{{/* Labels that select the objects of this release. */}}
{{- define "exchange.selector" -}}
app.kubernetes.io/name: exchange
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "exchange.labels" -}}
{{ include "exchange.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "exchange.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The market file of a market. */}}
{{- define "exchange.toml" -}}
{{- range $symbol, $fields := .instruments }}
[instruments.{{ $symbol | quote }}]
{{- include "exchange.fields" $fields }}
{{ end }}
{{- with .account }}
[account]
{{- include "exchange.fields" . }}
{{ end }}
{{- range $name, $fields := .accounts }}
[accounts.{{ $name | quote }}]
{{- include "exchange.fields" $fields }}
{{ end }}
{{- end }}

{{/* Fields of a table; a field that is itself a table is an inline table. */}}
{{- define "exchange.fields" -}}
{{- range $field, $value := . }}
{{ $field }} = {{ if kindIs "map" $value -}}
{ {{- $rest := false }}
{{- range $key, $number := $value }}{{ if $rest }}, {{ end }}{{ $key | quote }} = {{ $number | int64 }}{{ $rest = true }}{{ end -}}
}
{{- else if kindIs "string" $value }}{{ $value | quote }}
{{- else if kindIs "bool" $value }}{{ $value }}
{{- else }}{{ $value | int64 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Pod security "restricted", with a read-only root. */}}
{{- define "exchange.security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}
