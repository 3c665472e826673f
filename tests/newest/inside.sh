#!/bin/sh
# inside.sh ROOT REPOSITORY COMMAND...: runs COMMAND in the system in the folder ROOT, in namespaces of its own but for
# the network, in the REPOSITORY, which it may only read. Run it as root. What COMMAND leaves behind ends with it.
set -eu
exec unshare --mount --pid --fork --kill-child --uts sh -euc '
    root=$1 repository=$2
    shift 2
    mount --make-rprivate /
    mount --bind "$root" "$root"  # the root of a mount namespace is a mount
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/sshd"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mount --bind -o ro "$repository" "$root/srv"
    hostname machine  # as etc/hosts has it: sudo looks itself up
    # Not in place of this shell, which reaps what the tests leave to pid 1.
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 CI=true PYTHONDONTWRITEBYTECODE=1 \
        sh -euc "cd /srv; exec \"\$@\"" - "$@"
    exit
' - "$@"
