{{- define "pointsman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "pointsman.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "pointsman.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of what has no namespace, or lies in another: releases of one name in two namespaces are two. */}}
{{- define "pointsman.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "pointsman.fullname" .) -}}
{{- end -}}

{{- define "pointsman.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (dict "root" $ "more" labels), which win over commonLabels. */}}
{{- define "pointsman.labelsAnd" -}}
{{- merge (dict) .more (include "pointsman.labels" .root | fromYaml) | toYaml -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" "operator"). */}}
{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ include "pointsman.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "pointsman.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The namespaces that are looked after, as JSON; an empty list is all. */}}
{{- define "pointsman.namespaces" -}}
{{- if .Values.clusterWide -}}
[]
{{- else -}}
{{- default (list .Release.Namespace) .Values.namespaces | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.claim" -}}
{{- default (printf "%s-store" (include "pointsman.fullname" .)) .Values.store.volume.existingClaim -}}
{{- end -}}

{{/* Whose pods embed; empty for a namespace's default. */}}
{{- define "pointsman.shardAccount" -}}
{{- if .Values.jobs.serviceAccount -}}
{{- .Values.jobs.serviceAccount -}}
{{- else if not .Values.clusterWide -}}
{{- include "pointsman.fullname" . }}-shard
{{- end -}}
{{- end -}}

{{/* What no schema can say. */}}
{{- define "pointsman.check" -}}
{{- if and .Values.clusterWide .Values.namespaces -}}
{{- fail "clusterWide looks after all namespaces and namespaces names some; wanted one of the two" -}}
{{- end -}}
{{- if and (not .Values.clusterWide) .Values.secrets.namespaces -}}
{{- fail "secrets.namespaces is for clusterWide; otherwise Secrets are read in the namespaces that are looked after" -}}
{{- end -}}
{{- if and .Values.traces.enabled (not .Values.traces.endpoint) -}}
{{- fail "traces.endpoint is empty and traces.enabled is set; name the collector as http://collector.monitoring:4318" -}}
{{- end -}}
{{- if and (not .Values.store.s3.uri) .Values.store.s3.existingSecret -}}
{{- fail "store.s3.existingSecret is given and store.s3.uri is not; name the bucket as s3://bucket/prefix" -}}
{{- end -}}
{{- $shared := or .Values.store.s3.uri (has "ReadWriteMany" .Values.store.volume.accessModes) -}}
{{- if and (gt (int .Values.operator.replicas) 1) (not $shared) -}}
{{- fail "operator.replicas is more than 1 on a volume that one node alone can mount; wanted store.s3.uri or accessModes [ReadWriteMany]" -}}
{{- end -}}
{{- if and .Values.jobs.storeShared (not $shared) -}}
{{- fail "jobs.storeShared is set on a volume that one node alone can mount; wanted store.s3.uri or accessModes [ReadWriteMany]" -}}
{{- end -}}
{{- if and .Values.jobs.storeShared (not .Values.store.s3.uri) (not .Values.jobs.storeClaim) -}}
{{- fail "jobs.storeShared is set and jobs.storeClaim names no claim; name one of the datasets' namespace that is the same volume" -}}
{{- end -}}
{{- if and .Values.gateway.enabled (eq .Values.gateway.auth.mode "tokens") (not .Values.gateway.auth.tokensSecret) -}}
{{- fail "gateway.auth.mode is tokens and gateway.auth.tokensSecret names no Secret; name one with the key tokens" -}}
{{- end -}}
{{- if gt (int .Values.gateway.autoscaling.minReplicas) (int .Values.gateway.autoscaling.maxReplicas) -}}
{{- fail "gateway.autoscaling.minReplicas is more than maxReplicas; wanted at most as many" -}}
{{- end -}}
{{- end -}}
