#!/bin/sh
# Called by udhcpc with what happened and the lease in the environment.
case "$1" in
deconfig)
	ip addr flush dev "$interface"
	;;
bound | renew)
	ip addr flush dev "$interface"
	ip addr add "$ip/${mask:-24}" dev "$interface" || exit 1
	for r in $router; do
		ip route add default via "$r" dev "$interface"
		break
	done
	# The machine's /etc/resolv.conf leads here.
	mkdir -p /run/resolvconf
	{
		[ -z "$domain" ] || echo "search $domain"
		for d in $dns; do echo "nameserver $d"; done
	} >/run/resolvconf/resolv.conf.new
	mv /run/resolvconf/resolv.conf.new /run/resolvconf/resolv.conf
	echo "dhcp: $interface has $ip/${mask:-24}"
	;;
nak)
	echo "dhcp: $interface: refused: $message" >&2
	;;
esac
