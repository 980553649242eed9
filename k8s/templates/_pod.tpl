{{/*
The metadata and the spec of a pod: `root` is the chart's context, `name` a
market, `market` its settings, `role` "market", or "read" for an edge.
*/}}
{{- define "exchange.pod" -}}
{{- $root := .root }}
{{- $market := .market }}
{{- $isEdge := eq .role "read" }}
{{- $stream := include "exchange.stream" . }}
{{- $scheme := ternary "HTTPS" "HTTP" (ne $market.tlsSecret "") }}
{{- $origins := $market.origins }}
{{- if $market.host }}
{{- if not $market.hostTlsSecret }}
{{- $origins = prepend $origins (printf "http://%s" $market.host) }}
{{- end }}
{{- $origins = prepend $origins (printf "https://%s" $market.host) }}
{{- end }}
metadata:
  labels:
    {{- include "exchange.selector" $root | nindent 4 }}
    {{- if $isEdge }}
    edge: {{ .name | quote }}
    {{- else }}
    market: {{ .name | quote }}
    {{- end }}
  annotations:
    # The server reads the market file at its start: a change restarts it.
    checksum/market: {{ include "exchange.toml" $market | sha256sum }}
    {{- if $root.Values.metrics.annotations }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8765"
    prometheus.io/path: /metrics
    prometheus.io/scheme: {{ lower $scheme }}
    {{- end }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ $root.Release.Name | quote }}
  automountServiceAccountToken: false
  # Otherwise a service "exchange-server" would set EXCHANGE_SERVER_PORT.
  enableServiceLinks: false
  # The server carries out and commits what has arrived, and gives clients
  # 5 seconds to disconnect.
  terminationGracePeriodSeconds: 30
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not $market.open }}
  initContainers:
    # The server requires a key file that only its own user can read. The
    # file of a secret belongs to root, and its group may read it.
    - name: keys
      image: {{ include "exchange.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [install, -m, "0600", /secret/keys.json, /keys/keys.json]
      resources:
        {{- toYaml $market.resources | nindent 8 }}
      securityContext:
        {{- include "exchange.security" $root | nindent 8 }}
      volumeMounts:
        - {name: secret, mountPath: /secret, readOnly: true}
        - {name: keys, mountPath: /keys}
  {{- end }}
  containers:
    - name: exchange
      image: {{ include "exchange.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- if $market.maintenance }}
      command: [sh, -c, "trap exit TERM; sleep infinity & wait"]
      {{- end }}
      env:
        - {name: EXCHANGE_SERVER_HOSTNAME, value: 0.0.0.0}
        - {name: EXCHANGE_SERVER_PORT, value: "8765"}
        - {name: EXCHANGE_SERVER_DEBUG, value: "0"}
        - {name: EXCHANGE_SERVER_MARKET, value: /market/market.toml}
        {{- if $stream }}
        - name: NATS_PASSWORD
          valueFrom:
            secretKeyRef: {name: {{ $market.cluster.secret | quote }}, key: {{ ternary "read" "trade" $isEdge }}}
        - {name: EXCHANGE_SERVER_JOURNAL, value: {{ $stream | quote }}}
        {{- if $isEdge }}
        - {name: EXCHANGE_SERVER_ROLE, value: read}
        {{- else }}
        - {name: EXCHANGE_SERVER_JOURNAL_COPY, value: /data/{{ $market.cluster.stream | default .name }}.db}
        {{- end }}
        {{- else }}
        - {name: EXCHANGE_SERVER_JOURNAL, value: /data/{{ $market.journal }}}
        {{- end }}
        {{- if $market.open }}
        - {name: EXCHANGE_SERVER_OPEN, value: "1"}
        {{- else }}
        - {name: EXCHANGE_SERVER_KEYS, value: /keys/keys.json}
        {{- end }}
        {{- if $market.tlsSecret }}
        - {name: EXCHANGE_SERVER_TLS_CERT, value: /tls/tls.crt}
        - {name: EXCHANGE_SERVER_TLS_KEY, value: /tls/tls.key}
        {{- end }}
        {{- with $origins }}
        - {name: EXCHANGE_SERVER_ORIGINS, value: {{ join "," . | quote }}}
        {{- end }}
        {{- with $market.proxies }}
        - {name: EXCHANGE_SERVER_PROXIES, value: {{ join "," . | quote }}}
        {{- end }}
        {{- with $market.limits }}
        {{- if hasKey . "connections" }}
        - {name: EXCHANGE_SERVER_MAX_CONNECTIONS, value: {{ .connections | int64 | quote }}}
        {{- end }}
        {{- if hasKey . "perAddress" }}
        - {name: EXCHANGE_SERVER_MAX_PER_ADDRESS, value: {{ .perAddress | int64 | quote }}}
        {{- end }}
        {{- if hasKey . "perAccount" }}
        - {name: EXCHANGE_SERVER_MAX_PER_ACCOUNT, value: {{ .perAccount | int64 | quote }}}
        {{- end }}
        {{- end }}
      ports:
        - {name: http, containerPort: 8765}
      {{- if not $market.maintenance }}
      # The server listens after it has recovered everything
      {{- if $stream }}; a standby does too{{ end }}.
      startupProbe:
        httpGet: {path: /healthz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 2
        failureThreshold: {{ div (add $market.recoverySeconds 1) 2 }}
      # A restart ends all connections, so a short pause must not cause it.
      livenessProbe:
        httpGet: {path: /healthz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- if and $stream (not $isEdge) }}
      # Only the primary is ready, so the service leads to it alone. A take-over
      # needs 2 s, and this finds the new primary within one second more.
      readinessProbe:
        httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 1
      {{- else }}
      readinessProbe:
        httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- end }}
      {{- end }}
      resources:
        {{- toYaml $market.resources | nindent 8 }}
      securityContext:
        {{- include "exchange.security" $root | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /data}
        - {name: tmp, mountPath: /tmp}
        - {name: market, mountPath: /market, readOnly: true}
        {{- if not $market.open }}
        - {name: keys, mountPath: /keys}
        {{- end }}
        {{- if $market.tlsSecret }}
        - {name: tls, mountPath: /tls, readOnly: true}
        {{- end }}
  volumes:
    {{- if $stream }}
    - {name: data, emptyDir: {}} # a copy of the stream
    {{- end }}
    - {name: tmp, emptyDir: {}}
    - {name: market, configMap: {name: {{ $root.Release.Name }}-{{ .name }}}}
    {{- if not $market.open }}
    - {name: secret, secret: {secretName: {{ $market.keysSecret | quote }}}}
    - {name: keys, emptyDir: {medium: Memory}}
    {{- end }}
    {{- with $market.tlsSecret }}
    - {name: tls, secret: {secretName: {{ . | quote }}, defaultMode: 0440}}
    {{- end }}
  {{- if and $stream (not $isEdge) }}
  affinity:
    podAntiAffinity:
      # Two pods on one node would be lost together.
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "exchange.selector" $root | nindent 14 }}
              market: {{ .name | quote }}
  {{- end }}
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
