"""paramiko_login.py PORT USER COMMAND [-A]: logs in by paramiko with the first key of the agent that opens.

It runs COMMAND on 127.0.0.1, with -A while it forwards the agent, and prints what that prints. It accepts any
host key.
"""

import sys

import paramiko
from paramiko.agent import AgentRequestHandler

port, user, command, *forwarding = sys.argv[1:]
with paramiko.SSHClient() as client:
    client.set_missing_host_key_policy(paramiko.MissingHostKeyPolicy())
    client.connect("127.0.0.1", int(port), user, look_for_keys=False)
    channel = client.get_transport().open_session()
    if forwarding:
        AgentRequestHandler(channel)
    channel.exec_command(command)
    sys.stdout.buffer.write(channel.makefile().read())
