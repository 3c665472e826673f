"""paramiko_login.py PORT USER COMMAND: logs in by paramiko with the first key of the agent that opens there.

It runs COMMAND on 127.0.0.1 and prints what that prints. It accepts any host key.
"""

import sys

import paramiko

port, user, command = sys.argv[1:]
with paramiko.SSHClient() as client:
    client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
    client.connect("127.0.0.1", int(port), user, look_for_keys=False)
    sys.stdout.buffer.write(client.exec_command(command)[1].read())
