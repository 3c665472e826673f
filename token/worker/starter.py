"""Starting the workers of one module."""

from __future__ import annotations

import asyncio

from replug.token.errors import (
    ModuleUnreachableError,
    TokenError,
    Verdict,
    WorkerRefusedError,
)
from replug.token.names.load_arguments import LoadArguments
from replug.token.worker.client import WorkerClient
from replug.token.worker.deadlines import Deadlines
from replug.token.worker.forking import ForkServer
from replug.token.worker.output import ModuleOutput

_PROGRAM = "replug.token.worker.inside.program"


class Starter:
    """Starts workers with the module at `path` (canonical) loaded."""

    def __init__(
        self, path: str, arguments: LoadArguments, fork_server: ForkServer, deadlines: Deadlines
    ) -> None:
        self.path = path
        self._arguments = arguments
        self._deadlines = deadlines
        self._fork_server = fork_server
        self._loading: set[WorkerClient] = set()
        self._output = ModuleOutput(path)
        self._closed = False
        self._last_start = float("-inf")

    def close(self) -> None:
        """End what was started; nothing is started after this."""
        self._closed = True
        for worker in self._loading:
            worker.kill()
        self._output.close()

    def refuse_if_closed(self) -> None:
        """Raise TokenError after `close`."""
        if self._closed:
            raise TokenError(f"{self.path} was removed from the agent")

    @property
    def last_sign(self) -> float:
        """When a worker was last started or, loading the module, showed a sign of life."""
        return max((self._last_start, *(worker.last_sign for worker in self._loading)))

    async def loaded_worker(self, *, patient: bool, spare: bool) -> WorkerClient:
        """A worker with the module; one that is treated with more patience if another was silent.

        It may be one that was forked in advance if `spare`.

        Raises ModuleUnreachableError when there can be no process, TokenError for what is no module,
        WorkerLostError and WorkerRefusedError when loading fails.
        """
        self.refuse_if_closed()
        self._last_start = asyncio.get_running_loop().time()
        try:
            fork = self._fork_server.fork_or_spare if spare else self._fork_server.fork
            forked = await fork(_PROGRAM, self._deadlines.operation)
        except OSError as error:
            self.refuse_if_closed()
            raise _no_process(error) from error
        worker = WorkerClient(self._deadlines.doubled if patient else self._deadlines, forked)
        self._loading.add(worker)
        try:
            self.refuse_if_closed()
            worker.attach(self._output.new_pipe())
            await worker.load(self.path, self._arguments)
            self.refuse_if_closed()
        except BaseException as error:
            worker.kill()
            if isinstance(error, OSError):
                raise _no_process(error) from error
            if isinstance(error, WorkerRefusedError) and error.verdict is Verdict.NOT_A_MODULE:
                raise TokenError(f"{self.path} is not a PKCS#11 module: {error.reason}") from error
            raise
        finally:
            self._loading.remove(worker)
        return worker


def _no_process(error: OSError) -> ModuleUnreachableError:
    return ModuleUnreachableError(
        f"no worker process can be started: {error.strerror}", "see the limits of the agent (ulimit -a)"
    )
