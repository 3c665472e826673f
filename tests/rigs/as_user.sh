#!/bin/sh
# as_user.sh NAME UID FOLDER TREE... -- COMMAND...: runs COMMAND as an ordinary user who may use sudo.
#
# Run it as root inside `unshare --mount`: the user exists in that mount namespace only, on copies of the
# account files in FOLDER. Each TREE that the user could not reach, as under /root, is made reachable there.
set -eu
name=$1 uid=$2 folder=$3
shift 3

as_user() {
    setpriv --reuid "$uid" --regid "$uid" --clear-groups --bounding-set +all "$@"
}

# The uppermost folder on the way to $1 that the user may not search, if there is one.
closed() {
    case $1 in / | .) return ;; esac
    closed "$(dirname "$1")"
    [ -n "$found" ] || as_user test -x "$1" || found=$1
}

mkdir "$folder/etc" "$folder/trees"
for file in passwd group shadow; do
    cp -p "/etc/$file" "$folder/etc/$file"
done
echo "$name:x:$uid:$uid::$folder:/bin/sh" >>"$folder/etc/passwd"
echo "$name:x:$uid:" >>"$folder/etc/group"
echo "$name:*:20000:0:99999:7:::" >>"$folder/etc/shadow"
mkdir -m 0750 "$folder/etc/sudoers.d"
echo "$name ALL=(ALL:ALL) NOPASSWD: ALL" >"$folder/etc/sudoers.d/$name"
chmod 0440 "$folder/etc/sudoers.d/$name"
for file in passwd group shadow sudoers.d; do
    mount --bind "$folder/etc/$file" "/etc/$file"
done

number=0 moves=
while [ "$1" != -- ]; do
    found=
    closed "$1"
    if [ -n "$found" ]; then
        number=$((number + 1))
        mkdir "$folder/trees/$number"
        mount --rbind "$1" "$folder/trees/$number"
        moves="$moves $number:$found:$1"
    fi
    shift
done
shift
for move in $moves; do
    rest=${move#*:}
    mountpoint -q "${rest%%:*}" || mount -t tmpfs -o mode=0755 tmpfs "${rest%%:*}"
done
for move in $moves; do
    mkdir -p "${move##*:}"
    mount --move "$folder/trees/${move%%:*}" "${move##*:}"
done

exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
