"""replug-agent with a stand-in for its event loop: it reports how it was called, to the file $REPORT.

Three variables hold Python to run: $STAND_IN_START at the start, $STAND_IN_IMPORT when the event loop's
module is imported, and $STAND_IN in the place of the loop: it may set `status`.
"""

import os
import resource
import sys
from contextlib import suppress


def describe(listener, options, client, foreground, supervisor):
    import ctypes
    import dataclasses
    import signal
    import stat

    ignored = signal.SIG_IGN
    open_fds = [fd for fd in range(64) if fd not in (listener.fileno(), supervisor) and is_open(fd)]
    null = os.stat(os.devnull).st_rdev
    return {
        "address": listener.getsockname(),
        "options": dataclasses.asdict(options),
        "client": client,
        "foreground": foreground,
        "pid": os.getppid(),
        "session": os.getsid(0),
        "folder": os.getcwd(),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "ignored": [number.name for number in signal.Signals if signal.getsignal(number) is ignored],
        "blocked": [signal.Signals(number).name for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "fds": open_fds,
        "null": [
            fd for fd in open_fds if stat.S_ISCHR(os.fstat(fd).st_mode) and os.fstat(fd).st_rdev == null
        ],
        "listen": sorted(name for name in os.environ if name.startswith("LISTEN_")),
    }


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class StandIn:
    """Imported in the place of `replug.agent.service`, when it is imported."""

    def __init__(self):
        self.before_the_loop = None
        """The modules there were when the first of the event loop's was imported."""

    def find_spec(self, name, path=None, target=None):
        if name in ("asyncio", "replug.agent.service") and self.before_the_loop is None:
            self.before_the_loop = sorted(sys.modules)
        if name != "replug.agent.service":
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self)

    def create_module(self, spec):
        """Leaves it to Python."""

    def exec_module(self, module):
        exec(os.environ.get("STAND_IN_IMPORT", ""))

        def serve(listener, options, *, client, foreground, fork_server, manager):
            import json

            supervisor = fork_server._requests.fileno()
            report = describe(listener, options, client, foreground, supervisor)
            report["modules"] = self.before_the_loop
            with open(os.environ["REPORT"], "w") as file:
                json.dump(report, file, default=sorted)  # sets
            scope = {"status": 0}
            exec(os.environ.get("STAND_IN", ""), scope)
            return scope["status"]

        module.serve = serve


with suppress(ValueError):  # fails only where the limit is 0 already and cannot be raised
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
sys.meta_path.insert(0, StandIn())
sys.argv[0] = "replug-agent"
exec(os.environ.get("STAND_IN_START", ""))

from replug.agent.main import main  # noqa: E402

sys.exit(main())
