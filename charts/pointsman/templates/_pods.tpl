{{/* What operator and gateway share. Each takes (dict "root" $ "component" "operator"). */}}

{{- define "pointsman.environment" -}}
- name: POINTSMAN_NAMESPACES
  value: {{ include "pointsman.namespaces" .root | fromJsonArray | join "," | quote }}
- name: POINTSMAN_ALLOWED_HOSTS
  value: {{ join "," .root.Values.access.allowedHosts | quote }}
- name: POINTSMAN_LOG_LEVEL
  value: {{ .root.Values.logLevel }}
# The root filesystem cannot be written.
- name: HOME
  value: /tmp
{{- end -}}

{{- define "pointsman.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "pointsman.podMeta" -}}
{{- $own := index .root.Values .component -}}
labels:
  {{- include "pointsman.labelsAnd" (dict "root" .root "more" $own.podLabels) | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
{{- with $own.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "pointsman.podSpec" -}}
{{- $own := index .root.Values .component -}}
serviceAccountName: {{ include "pointsman.fullname" .root }}-{{ .component }}
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
