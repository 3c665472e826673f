"""`replug-agent`: ssh-agent's program, up to the point where the event loop starts.

Nothing heavy is imported before the socket is bound and the shell has its lines.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from dataclasses import replace

from replug.agent.clients import listener
from replug.agent.clients.listener import Listener, ListenerError
from replug.agent.clients.socket_folder import listen_as_told, user_folder
from replug.agent.config.file import config_path, load_config
from replug.agent.config.model import ConfigError
from replug.agent.process import daemon, lean, shell
from replug.agent.process.arguments import ArgumentError, Arguments, UsageError, parse, usage
from replug.agent.process.service_manager import Notifications, ServiceManager
from replug.agent.process.supervisor import Supervisor, do_in_time, end_likewise
from replug.agent.process.terminal_output import terminal_writer
from replug.token import hardening
from replug.token.worker.forkserver import close_all_but

_FATAL = 255
"""The exit status of OpenSSH's fatal()."""
_LARGEST_PID = 2**31 - 1
_MOST_DIGITS = 11
_NUMBER = re.compile(r"[ \t\n\v\f\r]*(?:\+|(?P<minus>-))?0*(?P<digits>[0-9]+)", re.ASCII)
"""As strtonum(3) reads one."""


def main() -> int:
    """Run the program with `sys.argv`; returns its exit status, having said on stderr why it failed."""
    try:
        hardening.refuse_tracing()
        daemon.show_name(os.fsencode(_name()), [os.fsencode(argument) for argument in sys.argv[1:]])
        daemon.open_standard_streams()
        return _run(parse(sys.argv[1:], shell=os.environ.get("SHELL")))
    except UsageError as error:
        if str(error):
            _complain(str(error))
        sys.stderr.write(usage(_name()))
        return 1
    except ConfigError as error:
        _complain(str(error))
        return 1
    except (ArgumentError, ListenerError) as error:
        _complain(str(error))
        return _FATAL
    except Exception as error:
        _complain(_in_words(error))
        return 1


def _run(arguments: Arguments) -> int:
    match arguments.action:
        case "version":
            from importlib.metadata import version

            sys.stderr.write(f"replug-agent {version('replug')}\n")
            return 0
        case "kill":
            return _kill(csh=arguments.csh)
        case "clean":
            return _clean(arguments)
        case "serve":
            return _start(arguments)


def _clean(arguments: Arguments) -> int:
    """Remove the stale sockets."""
    where = arguments.socket_folder
    folder = user_folder(where) if where is not None else listener.socket_folder(listener.home_folder())
    listener.remove_stale(folder, any_host=arguments.clean_any_host)
    _tell_shell(f"Deleted stale agent sockets in {'~/.ssh/agent' if where is None else folder}\n")
    return 0


def _kill(*, csh: bool) -> int:
    """End the agent of SSH_AGENT_PID."""
    given = os.environ.get("SSH_AGENT_PID")
    if given is None:
        _complain("SSH_AGENT_PID not set, cannot kill agent")
        return 1
    reason = _why_no_pid(given)
    if reason:
        _complain(f'SSH_AGENT_PID="{given}", which is not a good PID: {reason}')
        return 1
    pid = int(given)
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        _complain(f"kill: {error.strerror}")
        return 1
    _tell_shell(shell.killed_lines(pid, csh=csh))
    return 0


def _why_no_pid(text: str) -> str:
    """What is wrong with `text` as the process id of an agent, in the words of strtonum(3); "" if nothing."""
    number = _NUMBER.fullmatch(text)
    if number is None:
        return "invalid"
    if number["minus"]:
        return "too small"
    # A number of more digits than this is too large for Python, too.
    pid = int(number["digits"][:_MOST_DIGITS])
    if pid < 2:
        return "too small"
    return "too large" if pid > _LARGEST_PID else ""


def _start(arguments: Arguments) -> int:
    """Make the socket, part from the starter, and be the agent, or the command that has one."""
    options = arguments.options
    if _name() == "ssh-agent":
        options = replace(options, modules=())
    options = options.with_config(load_config(config_path(), options.modules))
    arguments = replace(arguments, options=options)
    # A signal must not end the process while there is a socket and nobody to remove it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, daemon.SIGNALS)
    try:
        listening = _listen(arguments)
    except ListenerError as error:
        if arguments.bind_address is None and not arguments.in_temporary_folder:
            raise
        _complain(str(error))
        return 1

    starter = os.getpid()
    if not arguments.foreground:
        try:
            supervisor = os.fork()
        except OSError:
            listening.remove()
            raise
        if supervisor != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return _as_starter(arguments, listening, supervisor)
    return _serve(arguments, listening, mask, starter if arguments.command else None)


def _serve(
    arguments: Arguments, listening: Listener, mask: set[int | signal.Signals], client: int | None
) -> int:
    """Fork the agent, and be its supervisor. Returns the exit status in both processes."""
    supervisor = os.getpid()
    mask = daemon.without_handled(mask)
    try:
        hardening.refuse_core_dumps()
        close_all_but(listening.socket.fileno())
        if not arguments.foreground:
            daemon.detach()
        elif listening.path is not None:
            _tell_shell(shell.foreground_lines(listening.path, supervisor, csh=arguments.csh))
        notifications = Notifications()
        requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = terminal_writer() if arguments.foreground else None
        agent = os.fork()
        if agent == 0:
            requests.close()
            if errors is not None:
                os.dup2(errors, sys.stderr.fileno())
                os.close(errors)
            hardening.end_with_parent(supervisor, signal.SIGTERM)
            daemon.end_on_signals(foreground=arguments.foreground, socket_activated=listening.path is None)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            manager = ServiceManager(theirs if notifications.wanted else None)
            notifications.close()
            return _as_agent(arguments, listening, client, theirs, manager)

        supervision = Supervisor(agent)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        if errors is not None:
            os.close(errors)
        listening.socket.close()
        if not arguments.foreground:
            daemon.silence()
        status = supervision.run(requests, notifications.send)
    finally:
        if os.getpid() == supervisor:
            do_in_time(listening.remove)
    return end_likewise(status)


def _listen(arguments: Arguments) -> Listener:
    if arguments.foreground and arguments.bind_address is None and arguments.socket_folder is None:
        activated = listener.take_activated()
        if activated is not None:
            return activated
    if arguments.in_temporary_folder:
        return listener.listen_in_temporary_folder(listener.temporary_folder())
    if arguments.bind_address is not None:
        return listener.listen_at(arguments.bind_address)
    if arguments.socket_folder is not None:
        return listen_as_told(arguments.socket_folder, skip_cleaning=arguments.skip_cleaning)
    home = listener.home_with_room()
    if home is None:
        return listener.listen_outside_home()
    folder = listener.socket_folder(home)
    if not arguments.skip_cleaning:
        listener.remove_stale(folder, any_host=False)
    return listener.listen_in(folder)


def _as_starter(arguments: Arguments, listening: Listener, agent: int) -> int:
    """Tell the shell about the agent, or execute the command with it. Returns only in the first case."""
    assert listening.path is not None
    if not arguments.command:
        _tell_shell(shell.daemon_lines(listening.path, agent, csh=arguments.csh))
        return 0
    os.environ["SSH_AUTH_SOCK"] = listening.path
    os.environ["SSH_AGENT_PID"] = str(agent)
    try:
        daemon.execute(arguments.command)
    except OSError as error:
        _complain(f"{arguments.command[0]}: {error.strerror}")
        return 1


def _as_agent(
    arguments: Arguments,
    listening: Listener,
    client: int | None,
    supervisor: socket.socket,
    manager: ServiceManager,
) -> int:
    """Serve until a signal or the end of the process `client`. Returns the exit status."""
    lean.return_freed_memory()
    lean.import_asyncio_without_ssl()
    from replug.agent.service import serve
    from replug.token.worker.forking import ForkServer

    if not arguments.foreground:
        daemon.silence()
    options = replace(arguments.options, socket_activated=listening.path is None)
    fork_server = ForkServer(supervisor)
    status = serve(
        listening.socket,
        options,
        client=client,
        foreground=arguments.foreground,
        fork_server=fork_server,
        manager=manager,
    )
    fork_server.leave(status)
    return status


def _tell_shell(lines: str) -> None:
    """Write `lines` to stdout at once; paths in them may be in no encoding at all."""
    # In the background of a terminal after `stty tostop` this would stop us.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    sys.stdout.buffer.write(os.fsencode(lines))
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _name() -> str:
    """The name that the program was called by: its own, or that of a link."""
    return os.path.basename(sys.argv[0])


def _complain(text: str) -> None:
    sys.stderr.write(f"{_name()}: {text}\n")


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
