"""All clients, by the names that `make clients CLIENTS=...` takes."""

from __future__ import annotations

from collections.abc import Mapping

from clients.by_ssh import Ansible, Git, Keychain, Rsync, Sshfs
from clients.client import Client
from clients.libraries import Asyncssh, Go, Libssh, NpmSsh2, Paramiko, Twisted
from clients.programs import Curl, Dbclient, Plink, Ssh, Sudo

CLIENTS: Mapping[str, Client] = {
    "ssh": Ssh(),
    "plink": Plink(),
    "dbclient": Dbclient(),
    "libssh": Libssh(),
    "curl": Curl(),
    "go": Go(),
    "ssh2": NpmSsh2(),
    "paramiko": Paramiko(),
    "asyncssh": Asyncssh(),
    "twisted": Twisted(),
    "sudo": Sudo(),
    "git": Git(),
    "ansible": Ansible(),
    "sshfs": Sshfs(),
    "rsync": Rsync(),
    "keychain": Keychain(),
}
