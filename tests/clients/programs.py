"""Programs with code of their own for agents."""

from __future__ import annotations

import os
import pwd

from clients.client import ENDS_AT_FIDO_KEY, PROVES_NO_HOST, READS_NO_FIDO_KEY, Client
from clients.user import FIDO, Visit
from rigs.sshd import USER

_SUDO = """
set -eu
mount -t tmpfs -o mode=0755 tmpfs /mnt
umask 022
cat {public} >/mnt/authorized_keys
echo 'auth required pam_ssh_agent_auth.so file=/mnt/authorized_keys
account required pam_permit.so
session required pam_permit.so' >/mnt/pam
echo 'Defaults noninteractive_auth, env_keep += SSH_AUTH_SOCK
{user} ALL=(root) ALL' >/mnt/sudoers
chmod 0440 /mnt/sudoers
mount --bind /mnt/pam /etc/pam.d/sudo
mount --bind /mnt/sudoers /etc/sudoers
setpriv --reuid {uid} --regid {gid} --clear-groups sudo -n {command}
"""
"""Run in a mount namespace: the module reads its keys only from a folder that nobody else can write."""


class Ssh(Client):
    title = "ssh"
    packages = ("openssh-client",)
    forwards = True

    def bring(self, visit: Visit) -> str:
        return visit.run(*visit.ssh, *visit.forwarding, "host", visit.command).out


class Plink(Client):
    title = "plink (PuTTY)"
    packages = ("putty-tools",)
    forwards = True
    cannot = PROVES_NO_HOST

    def bring(self, visit: Visit) -> str:
        shown = visit.home.run("ssh-keygen", "-l", "-f", visit.user.server.host_key)
        fingerprint = shown.out.split()[1]
        options = ["-batch", "-hostkey", fingerprint, "-P", str(visit.port), *visit.forwarding]
        return visit.run("plink", *options, visit.address, visit.command).out


class Dbclient(Client):
    title = "dbclient (Dropbear)"
    packages = ("dropbear-bin",)
    forwards = True
    cannot = ENDS_AT_FIDO_KEY

    def bring(self, visit: Visit) -> str:
        options = ["-y", "-y", "-p", str(visit.port), *visit.forwarding]
        return visit.run("dbclient", *options, visit.address, visit.command).out


_PASSES_ON_PART = {**PROVES_NO_HOST, FIDO: "the server refuses the signature as it passes it on"}


class Curl(Client):
    title = "curl (libssh2)"
    packages = ("curl", "libssh2-1")
    cannot = _PASSES_ON_PART

    def bring(self, visit: Visit) -> str:
        url = f"sftp://127.0.0.1:{visit.port}{visit.user.document}"
        return visit.run("curl", "-sS", "--insecure", "-u", f"{USER}:", url).out


class Sudo(Client):
    title = "sudo, by pam_ssh_agent_auth"
    packages = ("libpam-ssh-agent-auth", "sudo")
    cannot = READS_NO_FIDO_KEY

    def bring(self, visit: Visit) -> str:
        # Root would not be asked for anything. The module takes only a socket of the user who asks.
        nobody = pwd.getpwnam("nobody")
        visit.home.folder.chmod(0o711)
        os.chown(visit.agent.path, nobody.pw_uid, nobody.pw_gid)
        script = _SUDO.format(
            user=nobody.pw_name, uid=nobody.pw_uid, gid=nobody.pw_gid,
            public=visit.public, command=visit.command,
        )  # fmt: skip
        return visit.run("unshare", "--mount", "sh", "-c", script).out
