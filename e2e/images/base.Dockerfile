FROM scratch
COPY root /
CMD ["/bin/sh"]
