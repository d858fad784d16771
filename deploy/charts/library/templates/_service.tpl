{{- define "lakerunner.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: lakerunner
{{- end }}

{{- define "lakerunner.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lakerunner.name" -}}
{{ .Release.Name }}-{{ .Chart.Name }}
{{- end }}

{{/* Everything of one service: configuration, account, Deployment, Service, autoscaler and disruption budget. */}}
{{- define "lakerunner.service" -}}
{{- $g := .Values.global | default dict -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
data:
  config.yaml: |
    {{- toYaml (mergeOverwrite (dict) .Values.config) | nindent 4 }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
  {{- with .Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
spec:
  {{- if .Values.headless }}
  clusterIP: None
  {{- end }}
  selector: {{- include "lakerunner.selector" . | nindent 4 }}
  ports:
    - {name: http, port: 8080, targetPort: http}
    - {name: grpc, port: 9090, targetPort: grpc}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
spec:
  {{- if not .Values.autoscaling.enabled }}
  replicas: {{ .Values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "lakerunner.selector" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "lakerunner.labels" . | nindent 8 }}
      annotations:
        checksum/config: {{ toYaml .Values.config | sha256sum }}
        prometheus.io/scrape: "true"
        prometheus.io/port: "8080"
    spec:
      serviceAccountName: {{ include "lakerunner.name" . }}
      terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        fsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: {{ .Chart.Name }}
          image: "{{ .Values.image.registry }}/{{ .Chart.Name }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          args: [--config, /etc/lakerunner/config.yaml]
          envFrom:
            {{- with (.Values.secretName | default $g.secretName) }}
            - secretRef: {name: {{ . | quote }}}
            {{- end }}
          {{- with .Values.env }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: http, containerPort: 8080}
            - {name: grpc, containerPort: 9090}
          startupProbe:
            httpGet: {path: /readyz, port: http}
            failureThreshold: 60
            periodSeconds: 2
          readinessProbe:
            httpGet: {path: /readyz, port: http}
          livenessProbe:
            httpGet: {path: /livez, port: http}
          resources: {{- toYaml .Values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: config, mountPath: /etc/lakerunner, readOnly: true}
            - {name: scratch, mountPath: /tmp}
      volumes:
        - name: config
          configMap: {name: {{ include "lakerunner.name" . }}}
        - name: scratch
          emptyDir: {sizeLimit: {{ .Values.scratch }}}
      {{- with .Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "lakerunner.selector" . | nindent 6 }}
{{- if .Values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "lakerunner.name" . }}
  labels: {{- include "lakerunner.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "lakerunner.name" . }}}
  minReplicas: {{ .Values.replicas }}
  maxReplicas: {{ .Values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .Values.autoscaling.cpu }}}}
{{- end }}
{{- end }}
