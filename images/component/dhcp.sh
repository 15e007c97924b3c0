#!/bin/sh
# Gets an address for a network interface, the first argument or eth0, and
# ends when it has one: as an onboot container it lets the boot wait for the
# network. With the word "stay" behind it stays and renews the lease: for a
# service. Exit status 1: no address.
interface=${1:-eth0}
if [ ! -e "/sys/class/net/$interface" ]; then
	echo "dhcp: there is no network interface $interface; there are: $(ls /sys/class/net | tr '\n' ' ')" >&2
	exit 1
fi
ip link set "$interface" up
if [ "$2" = stay ]; then
	exec udhcpc -f -i "$interface" -s /usr/bin/lease.sh
fi
# Five questions, two seconds apart, then it gives up.
exec udhcpc -f -n -q -t 5 -T 2 -i "$interface" -s /usr/bin/lease.sh
