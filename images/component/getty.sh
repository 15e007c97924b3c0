#!/bin/sh
# Starts one getty for every console= word of the kernel command line and
# starts it again when it ends. INSECURE=true logs root in without a password.
started=""
for word in $(cat /proc/cmdline); do
	case "$word" in
	console=*) tty="${word#console=}"; tty="${tty%%,*}" ;;
	*) continue ;;
	esac
	case " $started " in
	*" $tty "*) continue ;;
	esac
	started="$started $tty"
	if [ ! -c "/dev/$tty" ]; then
		echo "getty: cmdline has console=$tty but /dev/$tty is not a character device; not starting getty for $tty" >/dev/console
		continue
	fi
	echo "getty: starting getty for $tty" >/dev/console
	(
		while true; do
			if [ "$INSECURE" = true ]; then
				/bin/getty -n -l /usr/bin/autologin 115200 "$tty" vt102
			else
				/bin/getty 115200 "$tty" vt102
			fi
			sleep 1 # a getty that cannot open its terminal must not spin
		done
	) &
done
wait
