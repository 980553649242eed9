{{/* Refuse values that the schema cannot refuse. */}}
{{- define "exchange.check" -}}
{{- if not (regexMatch "^[a-z][a-z0-9-]{0,29}$" .Release.Name) }}
{{- fail "the release's name: a letter, then letters, digits and dashes, 30 at most" }}
{{- end }}
{{- if not .Values.markets }}
{{- fail "markets: name at least one, see values.yaml" }}
{{- end }}
{{- range $name, $values := .Values.markets }}
{{- $market := mergeOverwrite (deepCopy $.Values.defaults) $values }}
{{- if and $market.edges.replicas (not $market.cluster.url) }}
{{- fail (printf "edges of %s: they follow a stream, so set cluster.url" $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The address of the stream that is the journal of a market, with the user and
the password of NATS; empty: the journal is a file. See "exchange.pod".
*/}}
{{- define "exchange.stream" -}}
{{- with .market.cluster }}
{{- if .url }}
{{- $scheme := index (splitList "://" .url) 0 }}
{{- $hosts := index (splitList "://" .url) 1 }}
{{- $user := ternary "read" "trade" (eq $.role "read") }}
{{- printf "%s://%s:$(NATS_PASSWORD)@%s/%s" $scheme $user $hosts (.stream | default $.name) }}
{{- end }}
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
public_positions = {{ .public_positions }}
public_leaderboard = {{ .public_leaderboard }}
{{- with .money }}
[money]
{{- include "exchange.fields" . }}
{{ end }}
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

{{/* Fields of a table. */}}
{{- define "exchange.fields" -}}
{{- range $field, $value := . }}
{{ $field }} = {{ include "exchange.value" $value }}
{{- end }}
{{- end }}

{{/* A value; an object is an inline table. */}}
{{- define "exchange.value" -}}
{{- if kindIs "map" . -}}
{ {{- $rest := false }}
{{- range $key, $value := . }}{{ if $rest }}, {{ end }}{{ $key | quote }} = {{ include "exchange.value" $value }}{{ $rest = true }}{{ end -}}
}
{{- else if kindIs "string" . }}{{ . | quote }}
{{- else if kindIs "bool" . }}{{ . }}
{{- else }}{{ . | int64 }}
{{- end }}
{{- end }}

{{/* Pod security "restricted", with a read-only root. */}}
{{- define "exchange.security" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}
