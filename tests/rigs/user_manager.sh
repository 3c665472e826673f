#!/bin/sh
# user_manager.sh NAME UID FOLDER HOME TREE...: a user's systemd, in namespaces of its own, until stdin ends.
#
# Run it as root. The user and the service manager exist in here only: with another /run, a cgroup below a new
# one, and FOLDER as their HOME. TREEs are made reachable for the user (as_user.sh). Prints a line when it runs.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

as_login() {
    # Nothing of the environment of the tests, but what is in FOLDER/environment: as PAM would have it.
    exec env -i $(cat "$home/environment") HOME="$home" USER="$name" LOGNAME="$name" SHELL=/bin/sh \
        XDG_RUNTIME_DIR="/run/user/$uid" "$@"
}

if [ "$1" = inside ]; then
    name=$2 uid=$3 home=$4
    target=console
    [ ! -e /run/systemd/journal/socket ] || target=journal
    as_login /lib/systemd/systemd --user --log-target=$target --log-level=notice >&2 &
    manager=$!
    echo started
    read -r _ || true
    kill "$manager"
    wait
    exit
fi

if [ "$1" != outside ]; then
    cgroup=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)/replug-test-$$
    mkdir "$cgroup"
    # A cgroup namespace begins at the cgroup it is made in; $0 leaves it again to be able to remove it.
    trap 'find "$cgroup" -depth -type d -exec rmdir {} +' EXIT
    sh -c 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"' - "$cgroup" \
        unshare --mount --cgroup --pid --fork --kill-child sh "$0" outside "$@"
    exit
fi

shift
name=$1 uid=$2 folder=$3 home=$4
shift 4
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
delegated=/sys/fs/cgroup/user
mkdir "$delegated"
chown "$uid" "$delegated" "$delegated/cgroup.procs" "$delegated/cgroup.subtree_control" "$delegated/cgroup.threads"
echo 0 >"$delegated/cgroup.procs"
[ ! -e /run/udev/control ] || udev=runs
mount -t tmpfs -o mode=0755 tmpfs /run
if [ "${udev-}" ]; then
    mkdir /run/udev
    touch /run/udev/control
fi
# Where service managers put together the file system that a service sees.
mkdir -p /run/systemd/mount-rootfs /run/systemd/unit-root /run/systemd/system /run/user
if [ -e "$folder/tmp/journal" ]; then
    mount -t tmpfs tmpfs /var/log
    mkdir -p /var/log/journal /run/systemd/journal /run/systemd/journald.conf.d
    touch /run/systemd/journal/flushed  # or it keeps all in /run, where users read nothing
    # Nothing of this machine's: neither the kernel's messages nor its audit.
    printf '[Journal]\nStorage=persistent\nSplitMode=uid\nReadKMsg=no\nAudit=no\n' >/run/systemd/journald.conf.d/test.conf
    /lib/systemd/systemd-journald >&2 &
    while ! [ -e /run/systemd/journal/socket ]; do sleep 0.1; done
fi
# Debian 13 starts OpenSSH's agent in every session; tests that want another agent bring their own.
mkdir /run/systemd/user
ln -s /dev/null /run/systemd/user/ssh-agent.socket
install -d -m 0700 -o "$uid" -g "$uid" "/run/user/$uid"
mount -t tmpfs -o mode=0755 tmpfs "$(dirname "$home")"
mkdir "$home"
mount --bind "$folder" "$home"
accounts=/run/accounts
mkdir "$accounts"
exec sh "$here/as_user.sh" "$name" "$uid" "$accounts" "$@" -- sh "$here/user_manager.sh" inside "$name" "$uid" "$home"
