#!/bin/sh
# Sets the kernel's parameters from the machine's /etc/sysctl.d/*.conf, in the
# order of their names. One that cannot be set is named by its line, the others
# are set all the same, and the exit status is then 1.
status=0
for file in /hostroot/etc/sysctl.d/*.conf; do
	[ -f "$file" ] || continue
	echo "sysctl: $(basename "$file")"
	sysctl -p "$file" || status=1
done
exit $status
