#!/bin/sh
# Makes the unpacked guest tree the lab's guest. HERE is this directory, AGENT the agent's binary.
set -e
root=$1
install -m 755 "$AGENT" "$root/usr/local/sbin/hostcheck-lab-agent"
install -m 644 "$HERE/lab-agent.service" "$root/etc/systemd/system/"
install -m 644 "$HERE/grub" "$root/etc/default/grub"
echo labhost > "$root/etc/hostname"
echo '127.0.0.1 localhost labhost' > "$root/etc/hosts"
echo 'LABEL=labroot / ext4 errors=remount-ro 0 1' > "$root/etc/fstab"
chroot "$root" passwd -d root > /dev/null
chroot "$root" systemctl -q enable lab-agent.service
# what only costs time in a guest without a network or a terminal
for unit in getty@tty1.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
