#!/bin/sh
# Sets the kernel's parameters from the machine's /etc/sysctl.d/*.conf, in the
# order of their names. One that cannot be set is named by its line, the others
# are set all the same, and the exit status is then 1.
status=0
errors=/tmp/errors # sysctl of busybox ends with 0 even if it could not set a thing
mkdir -p /tmp
for file in /hostroot/etc/sysctl.d/*.conf; do
	[ -f "$file" ] || continue
	echo "sysctl: $(basename "$file")"
	sysctl -p "$file" 2>"$errors" || status=1
	if [ -s "$errors" ]; then
		cat "$errors" >&2
		status=1
	fi
done
exit $status
