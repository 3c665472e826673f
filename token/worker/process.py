"""A worker process and the agent's side of the conversation with it: ask it, end it, kill it.

There is no way back from a missed deadline, a crash or a frame that makes no sense: the process is
killed and `WorkerLostError` raised. What to do then is for the caller to decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import TypeVar

from replug.protocol.secrets import wipe
from replug.token.boottime import boottime
from replug.token.errors import Verdict, WorkerLostError, WorkerRefusedError, WorkerSilentError
from replug.token.worker.deadlines import Patience
from replug.token.worker.forking import Forked
from replug.token.worker.frames import FrameError, FrameReader, Header, Request, encode
from replug.token.worker.passing import send_with_descriptor
from replug.token.worker.vigil import StoppedProcessError, Vigil

T = TypeVar("T")

_PIECES_PER_TURN = 64
"""Then the loop's other work has its turn."""
_LONGEST_NAME = 60  # characters of a CKR_ name
_LONGEST_REASON = 300  # characters; a module chooses some of them
_FOR_ITS_END = 1.0  # seconds


class RemovedError(Exception):
    """What the worker is busy with is no longer there."""


class WorkerProcess:
    """One live worker process. Not reentrant: the caller sends one request at a time."""

    def __init__(self, process: Forked) -> None:
        self.pid = process.pid
        """The worker's process id."""
        self.alive = True
        self.started_at = boottime()
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._answer: asyncio.Future[tuple[Header, bytearray]] | None = None
        """What the caller waits for."""
        self._vigil = Vigil(self.pid, self._fail)
        self._token_in_use: Header | None = None
        self._sending = False
        self._attached: int | None = None
        """A descriptor that goes with the next request."""
        self._gone = asyncio.Event()
        self._process = process
        self._socket = process.connection
        self._loop.add_reader(self._socket, self._readable)
        self._loop.add_reader(process.exit_notice, self._exited)

    @property
    def last_sign(self) -> float:
        """When it last showed a sign of life, on the loop's clock."""
        return self._vigil.last_sign

    @property
    def asked(self) -> bool:
        """Whether it has something to do."""
        return self._answer is not None

    @property
    def token_in_use(self) -> Header | None:
        """The fields of the token that it is busy with."""
        return self._token_in_use

    def end_unless_answered(self, grace: float) -> None:
        """What it works on has left: it gets `grace` seconds to say so, and is ended then."""
        self._loop.call_later(grace, self._give_up, self._answer)

    def _give_up(self, answer: asyncio.Future[tuple[Header, bytearray]] | None) -> None:
        if answer is self._answer:
            self._fail(RemovedError())

    def end(self) -> None:
        """End the process in an orderly way: it closes its sessions, and is killed if that takes long.

        One that has something to do is killed at once.
        """
        if not self.alive:
            return
        if self._answer is not None or self._sending:
            self.kill()
            return
        self._loop.call_later(_FOR_ITS_END, self._kill_process)
        self._let_go()

    async def wait_for_end(self) -> None:
        """Return when the process has ended, or no longer may take the time for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FOR_ITS_END):
                await self._gone.wait()

    def kill(self) -> None:
        """End the process now. It is reaped when the kernel says so; a hung driver may take its time."""
        if self.alive:
            self._kill_process()
            self._let_go()

    def _kill_process(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._gone.set()  # nobody waits for what cannot be hurried

    def _let_go(self) -> None:
        """Close the connection, at which the process ends by itself if it can."""
        self.alive = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._close_attached()
        self._vigil.close()
        self._frames.wipe()
        self._fail(EOFError())

    def _exited(self) -> None:
        self._loop.remove_reader(self._process.exit_notice)
        os.close(self._process.exit_notice)
        self._process.wait()
        self._gone.set()
        if self.alive:
            self._readable()  # its last words may be an answer
        self.kill()

    async def ask(
        self,
        what: Request,
        patience: Patience,
        read: Callable[[Header, bytearray], T],
        *body: bytes | bytearray,
    ) -> T:
        """What `read` makes of the answer's header and body, if the `patience` lasts.

        The parts of the request's `body` are the caller's to wipe; of copies, none is left once it is sent.
        Raises WorkerRefusedError for an answer that is a refusal, WorkerLostError when there is none, or one
        that `read` cannot read.
        """
        if not self.alive:
            raise WorkerLostError("the worker process had ended")
        if self._answer is not None:
            raise RuntimeError("a worker was asked two things at once")
        operation, request = what.operation, encode(what, *body)
        answer = self._answer = self._loop.create_future()
        self._token_in_use = what.header.get("token")
        self._vigil.begin(patience)
        answered = False
        try:
            self._send(request, 0)
            reply, content = await answer
            if "verdict" in reply:
                refused = WorkerRefusedError(
                    Verdict(reply["verdict"]),
                    str(reply["reason"])[:_LONGEST_REASON],
                    str(reply["value"])[:_LONGEST_NAME],
                )
                answered = True
                raise refused
            result = read(reply, content)
            answered = True
            return result
        except WorkerRefusedError:
            raise
        except TimeoutError:
            raise WorkerSilentError(f"no answer to {operation} within {patience.silence:g} s") from None
        except RemovedError:
            raise WorkerLostError(f"the token was removed during {operation}") from None
        except StoppedProcessError:
            raise WorkerLostError(f"the worker process was stopped during {operation}") from None
        except (EOFError, OSError) as error:
            raise WorkerLostError(f"the worker process ended during {operation}") from error
        except Exception as error:  # a hostile module has it answer whatever it likes
            raise WorkerLostError(f"the worker's answer to {operation} makes no sense") from error
        finally:
            self._vigil.end()
            self._token_in_use = self._answer = None
            wipe(request)
            # A cancelled caller, too, leaves an answer under way that nobody will take.
            if not answered:
                self.kill()

    def _send(self, request: bytearray, begin: int) -> None:
        """Send as much as the worker takes now, and the rest when it takes more; wipe what is sent.

        The PIN in it must not outlast the agent's own while the worker takes its time.
        """
        try:
            with memoryview(request) as view:
                if self._attached is None:
                    sent = begin + self._socket.send(view[begin:])
                else:
                    sent = begin + send_with_descriptor(self._socket, view[begin:], self._attached)
                    self._close_attached()
        except BlockingIOError:
            sent = begin
        except OSError as error:
            self._fail(error)
            return
        wipe(request, begin, sent)
        if sent < len(request):
            self._sending = True
            self._loop.add_writer(self._socket, self._send, request, sent)
            return
        if self._sending:
            self._sending = False
            self._loop.remove_writer(self._socket)

    def attach(self, descriptor: int) -> None:
        """Send `descriptor` with the next request: what the worker prints goes there. It is closed here."""
        self._attached = descriptor

    def _close_attached(self) -> None:
        if self._attached is not None:
            os.close(self._attached)
            self._attached = None

    def _readable(self) -> None:
        try:
            frame = None
            for _ in range(_PIECES_PER_TURN):
                with self._frames.writable() as space:
                    count = self._socket.recv_into(space)
                if count == 0:
                    raise EOFError
                if self._answer is None:
                    raise FrameError("an answer to nothing")
                self._vigil.last_sign = self._loop.time()
                self._frames.received(count)
                frame = self._frames.take()
                if frame is not None:
                    break
            if frame is None:
                return
            if self._answer is None or self._answer.done() or self._sending:
                raise FrameError("an answer to nothing")
            self._answer.set_result(frame)
        except BlockingIOError:
            return
        except Exception as error:
            self._fail(error)
            self.kill()

    def _fail(self, error: Exception) -> None:
        """Tell the caller that waits for an answer that there will be none."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
