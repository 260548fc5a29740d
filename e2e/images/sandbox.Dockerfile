# What holds a pod's namespaces. It needs no registry, and does nothing.
FROM scratch
COPY busybox /bin/busybox
USER 65535:65535
ENTRYPOINT ["/bin/busybox", "sleep", "2147483647"]
