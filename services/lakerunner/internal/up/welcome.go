// SPDX-License-Identifier: AGPL-3.0-only

package up

import (
	"fmt"
	"io"
	"strings"
	"text/template"
)

// What a newcomer is shown, with its answer.
const (
	firstQuery       = `{service_name="checkout"} |= "declined"`
	firstMetricQuery = `sum by (service_name) (rate(http_server_requests_total[5m]))`
)

// welcome is what is printed when everything runs.
type welcome struct {
	Access   Access
	Command  string // that asks the first query
	Chart    string // the command that draws the first query of metrics
	Data     string
	S3       string // endpoint; empty: not this process's
	Bucket   string
	Database string   // without its password
	Lines    []string // answer of the first query, newest first
	Rows     int64    // in the lake, of the sample's time
	Values   []string // answer of the first query of metrics
}

func (w welcome) print(out io.Writer) error {
	t := template.Must(template.New("welcome").Funcs(template.FuncMap{"indent": indent}).Parse(`
LakeRunner is running. Ctrl-C stops it; nothing is lost.

  Loki API    {{ .Access.HTTP }}/loki
  Prometheus  {{ .Access.HTTP }}/prometheus
  REST        {{ .Access.HTTP }}/api/v1        (description: {{ .Access.HTTP }}/openapi.json)
  gRPC        {{ .Access.Address }}
  Metrics     {{ .Access.HTTP }}/metrics
{{- if .S3 }}
  S3          {{ .S3 }}, bucket {{ .Bucket }}; keys are in {{ .Data }}/lakerunner.yaml
{{- else }}
  Bucket      {{ .Bucket }}
{{- end }}
  PostgreSQL  {{ .Database }}
  API key     {{ .Access.APIKey }}

Grafana: save this as provisioning/datasources/lakerunner.yaml

  apiVersion: 1
  datasources:
    - name: LakeRunner logs
      type: loki
      access: proxy
      url: {{ .Access.HTTP }}
      basicAuth: true
      basicAuthUser: lakerunner
      jsonData:
        maxLines: 1000
      secureJsonData:
        basicAuthPassword: {{ .Access.APIKey }}
    - name: LakeRunner metrics
      type: prometheus
      access: proxy
      url: {{ .Access.HTTP }}/prometheus
      basicAuth: true
      basicAuthUser: lakerunner
      jsonData:
        httpMethod: POST
        prometheusType: Prometheus
        prometheusVersion: 3.15.0
        timeInterval: 15s
      secureJsonData:
        basicAuthPassword: {{ .Access.APIKey }}
{{ if .Lines }}
A first query, over {{ .Rows }} rows of a sample web shop:

  {{ .Command }}

{{ range .Lines }}{{ indent . }}
{{ end }}{{ end }}{{ if .Values }}
And a first one of its metrics, requests a second by service; the command draws a chart:

  {{ .Chart }}

{{ range .Values }}  {{ . }}
{{ end }}{{ end }}`))
	if err := t.Execute(out, w); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func indent(line string) string { return "  " + strings.ReplaceAll(line, "\n", "\n  ") }
