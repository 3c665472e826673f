"""asyncssh_login.py PORT USER COMMAND [-A]: logs in by asyncssh with the first key of the agent that opens.

It runs COMMAND on 127.0.0.1, with -A while it forwards the agent, and prints what that prints. It accepts any
host key.
"""

import asyncio
import sys

import asyncssh


async def main(port: str, user: str, command: str, *forwarding: str) -> None:
    async with asyncssh.connect(
        "127.0.0.1",
        int(port),
        username=user,
        known_hosts=None,
        config=[],
        client_keys=(),
        agent_forwarding=bool(forwarding),
    ) as client:
        sys.stdout.write(str((await client.run(command, check=True)).stdout))


asyncio.run(main(*sys.argv[1:]))
