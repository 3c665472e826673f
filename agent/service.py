"""The running agent: the event loop, signals, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from replug.agent.ca.journal import Journal, journal_path
from replug.agent.clients.client import Client
from replug.agent.clients.peer import Peer
from replug.agent.clients.server import Entrance, Server
from replug.agent.clients.view import View
from replug.agent.clients.waiting import ClientLoop, Waiting
from replug.agent.config.options import Options
from replug.agent.config.settings import Settings
from replug.agent.control.client import control_path
from replug.agent.control.refusals import RefusalHistory
from replug.agent.control.server import Control, asker
from replug.agent.desktop.logind import SessionEvents
from replug.agent.desktop.touch_notice import TouchNotices
from replug.agent.dispatch import Conversation, Dispatcher
from replug.agent.key_rules.described import forget_hosts
from replug.agent.keyring import Keyring
from replug.agent.probe import probe
from replug.agent.process import log as logging_setup
from replug.agent.process.daemon import SIGNALS
from replug.agent.process.service_manager import ServiceManager
from replug.agent.process.status_line import keep_status
from replug.agent.refresh import refresh
from replug.agent.reload import Reloader, reload
from replug.agent.renewal import renew_files
from replug.agent.status import authorities, forget, status
from replug.agent.views.sockets import ViewSockets
from replug.token.bytes_only import BytesOnlyListener, Disposal
from replug.token.hardening import readable_through_user_namespace
from replug.token.noticing.hotplug import UsbHotplug
from replug.token.noticing.readers import CardReaders
from replug.token.noticing.watch import Watcher
from replug.token.pins.lifetime import ForgetOn
from replug.token.prompts.choice import ChoosingPrompter
from replug.token.prompts.environment import environment_of
from replug.token.prompts.terminals import Terminals
from replug.token.security_keys.authenticators import Authenticators, plugged_in
from replug.token.security_keys.helper import SkHelper
from replug.token.worker.forking import ForkServer

log = logging.getLogger(__name__)

_SWITCH_INTERVAL = 0.0005  # seconds for which a thread that computes keeps the event loop from running
_FOR_IMPORTS = 5.0  # seconds for what is being imported at the end; its files may be on a dead file system
_ENDED_BY_SIGNAL = 2  # as ssh-agent does (cleanup_handler)


def serve(
    listener: socket.socket,
    options: Options,
    *,
    client: int | None,
    foreground: bool,
    fork_server: ForkServer,
    manager: ServiceManager,
) -> int:
    """Serve `listener` until a signal, or the end of the process `client`; the exit status.

    In the foreground the log goes to stderr and SIGINT ends the agent.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL)
    # Threads start programs, and one that uses vfork(2) has Python's lock until the program's file is loaded.
    subprocess._USE_VFORK = False  # type: ignore[misc]
    logging_setup.configure(foreground=foreground, debug=options.debug)
    service = _Service(options, fork_server, manager, foreground=foreground)
    # Until the loop handles signals, they end the process at once, and what the loop has made would stay.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    loop = ClientLoop()
    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(service.run(listener, client, loop.waiting, mask))
    finally:
        log.info("ended")  # here, as what ends with the loop may still log something


class _Service:
    def __init__(
        self, options: Options, fork_server: ForkServer, manager: ServiceManager, *, foreground: bool
    ) -> None:
        self._options = options
        self._fork_server = fork_server
        self._manager = manager
        self._foreground = foreground
        self._ended: asyncio.Future[int]
        self._release = ""
        """The installed version, as it was at the start; empty until it is known."""

    async def run(
        self, listener: socket.socket, client: int | None, waiting: Waiting, mask: set[int | signal.Signals]
    ) -> int:
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        config = self._options.config
        terminals = Terminals(self._fork_server)
        prompter = ChoosingPrompter(
            os.environ,
            config.prompt_timeout,
            way=config.prompt,
            pinentry_program=config.pinentry_program,
            environment_of=environment_of,
            terminals=terminals,
        )
        settings = Settings(self._options)
        notices = TouchNotices(os.environ, lambda: settings.options.config.touch_notification, terminals)
        history = RefusalHistory()
        keyring = Keyring(
            settings,
            prompter,
            notices,
            self._fork_server,
            Journal(journal_path),
            history,
            Authenticators(SkHelper(os.environ), plugged_in),
        )
        address = listener.getsockname()
        keyring.begin()  # before anybody can ask
        dispatcher = Dispatcher(keyring, history)
        events = SessionEvents(
            os.environ,
            on_suspend=functools.partial(keyring.forget_pins_on, ForgetOn.SUSPEND),
            on_screen_lock=functools.partial(keyring.forget_pins_on, ForgetOn.SCREEN_LOCK),
        )
        listening: list[asyncio.Task[None]] = []

        def listen_for_events() -> None:
            if keyring.settings.config.forgets_on_session_events and not listening:
                listening.append(asyncio.create_task(events.run()))

        server, disposal = Server(waiting, dispatcher.not_served), Disposal()

        def conversation(peer: Peer, view: View | None = None) -> Conversation:
            client = Client(peer, view=view)
            client.at_hand = keyring.at_hand_for(client)
            return Conversation(dispatcher, keyring.changes, client)

        own_sockets = (address, control_path(address))
        views = ViewSockets(settings, own_sockets, server, conversation, disposal.take, keyring.changes)

        async def follow() -> None:
            listen_for_events()
            paths = [entry.path for entry in settings.config.sockets]
            keyring.upstreams.own_sockets[:] = [address, *paths]
            await views.follow()

        reloader = Reloader(keyring, follow)
        control = Control(
            address,
            {
                "status": lambda: status(keyring, views.all(), history, address, self._release),
                "ca": lambda: authorities(keyring, address),
                "issue": lambda: renew_files(keyring, asker.get()),
                "forget": functools.partial(forget, keyring),
                "forget-hosts": functools.partial(forget_hosts, keyring.destinations),
                "refresh": functools.partial(refresh, keyring),
                "reload": functools.partial(reload, reloader),
                "probe": probe,
            },
        )

        clients = BytesOnlyListener.of(listener, disposal.take)
        server.open(Entrance(clients, conversation, keyring.why_no_guests))
        self._handle_signals(keyring, reloader)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # It may wait for a folder that does not answer, and may be told to end meanwhile.
        starting = asyncio.gather(control.start(), follow())
        first: tuple[asyncio.Future[Any], ...] = (starting, self._ended)
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if client is not None:
            self._end_with(client)
        watcher = Watcher(keyring.modules)
        hotplug = UsbHotplug(watcher.nudge, watcher.readers_unplugged)
        readers = CardReaders(
            lambda: any(module.uses_pcscd for module in keyring.modules()), watcher.cards_changed
        )
        tasks = [
            watcher.run(),
            hotplug.run(),
            readers.run(),
            keyring.certificate_files.keep_fresh(),
            keep_status(
                self._manager, keyring.modules, lambda: keyring.locked, lambda: keyring.settings.refused
            ),
        ]
        watching = [asyncio.create_task(task) for task in tasks]
        preparation = asyncio.create_task(self._prepare(keyring))
        preparation.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._manager.tell("READY=1")
        log.info("started", extra={"address": address})
        if readable_through_user_namespace():
            next_step = "remove PrivateUsers= from the unit: replug setup writes one without"
            log.error("the user's other programs can read PINs and keys", extra={"next_step": next_step})
        try:
            return await self._ended
        finally:
            running: list[asyncio.Future[Any]] = [starting, *watching, *listening]
            for task in running:
                task.cancel()
            server.close()
            keyring.end()
            await asyncio.gather(control.close(), views.close())
            await asyncio.wait([preparation], timeout=_FOR_IMPORTS)
            self._fork_server.close()
            # Once the loop is closed, a second signal would kill the process and change its exit status.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def _handle_signals(self, keyring: Keyring, reloader: Reloader) -> None:
        loop = asyncio.get_running_loop()
        orderly = 0 if self._options.socket_activated else _ENDED_BY_SIGNAL
        loop.add_signal_handler(signal.SIGTERM, self._end, orderly)
        if self._manager.listens:
            # For a service it means: read the configuration again. Elsewhere a terminal has hung up.
            loop.add_signal_handler(signal.SIGHUP, reloader.reload)
        else:
            loop.add_signal_handler(signal.SIGHUP, self._end, _ENDED_BY_SIGNAL)
        loop.add_signal_handler(signal.SIGUSR1, keyring.remove_all)
        if self._foreground:
            loop.add_signal_handler(signal.SIGINT, self._end, _ENDED_BY_SIGNAL)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def _prepare(self, keyring: Keyring) -> None:
        await keyring.aside(_prepare_reloading)
        self._release = await keyring.aside(_installed_release)
        await keyring.aside(_prepare_signing)
        # What is there now stays: the garbage collector, for which all wait, need not go through it again.
        gc.freeze()

    def _end_with(self, client: int) -> None:
        try:
            notice = os.pidfd_open(client)
        except ProcessLookupError:
            self._end(0)
            return
        asyncio.get_running_loop().add_reader(notice, self._end, 0)

    def _end(self, status: int) -> None:
        if not self._ended.done():
            self._ended.set_result(status)


def _installed_release() -> str:
    from importlib.metadata import version  # slow, and there is no hurry

    return version("replug")


def _prepare_reloading() -> None:
    """Import what reads the configuration; without a file at the start it is not loaded yet."""
    import replug.agent.config.reader  # noqa: F401


def _prepare_signing() -> None:
    """Import what the first signature will need, away from the loop, which would stand still meanwhile."""
    with contextlib.suppress(ImportError):
        import cryptography.hazmat.primitives.asymmetric.ec
        import cryptography.hazmat.primitives.asymmetric.ed25519
        import cryptography.hazmat.primitives.asymmetric.rsa
        import cryptography.hazmat.primitives.ciphers.aead
        import cryptography.hazmat.primitives.kdf.scrypt  # noqa: F401
