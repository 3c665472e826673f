#!/bin/sh
# booted.sh ROOT: boots the system in the folder ROOT, in namespaces of its own but for the network. Run it as root.
#
# Its systemd is process 1 there, has a cgroup tree of its own, and what it writes at the start is in ROOT/boot.log.
set -eu
root=$1
unified=/sys/fs/cgroup
[ -e "$unified/cgroup.controllers" ] || unified=/sys/fs/cgroup/unified
group=$unified/replug-machine-$$
mkdir "$group"
# The kernel takes a moment to have ended everything in it.
trap 'for _ in $(seq 50); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break; sleep 0.1; done' EXIT
(
    sh -c 'echo $PPID' >"$group/cgroup.procs"
    exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc sh -eu -c '
        root=$1
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t sysfs -o ro sysfs "$root/sys"
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
        mount -t tmpfs -o mode=755 tmpfs "$root/run"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mount -t tmpfs -o mode=755 tmpfs "$root/dev"
        for node in null zero full random urandom tty; do
            touch "$root/dev/$node"
            mount --bind "/dev/$node" "$root/dev/$node"
        done
        mkdir "$root/dev/pts" "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
        mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
        ln -s pts/ptmx "$root/dev/ptmx"
        ln -s /proc/self/fd "$root/dev/fd"
        hostname "$(cat "$root/etc/hostname")"
        cd "$root"
        pivot_root . mnt
        umount --lazy /mnt
        # As systemd-nspawn does: a credential of a service is mounted in a namespace of its own, and has to appear here.
        mount --make-rshared /
        exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init --log-target=console </dev/null >/boot.log 2>&1
    ' - "$root"
)
