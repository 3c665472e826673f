"""caml-crush: a PKCS#11 module whose token is behind a server, like a network HSM."""

from __future__ import annotations

import socket
from pathlib import Path

from rigs import softhsm, spy
from rigs.machine import Machine
from rigs.softhsm import Token
from rigs.spy import Spy
from rigs.terminal import eventually
from rigs.tried import TriedToken
from rigs.tried_softhsm import KINDS

_NETPLEX = """netplex {{
  controller {{
    max_level = "debug";
    socket_directory = "{folder}/netplex";
    logging {{ type = "stderr"; }};
  }};
  service {{
    name = "PKCS#11";
    conn_limit = 1;
    protocol {{
      name = "rpc_pkcs11";
      address {{ type = "local"; path = "{socket}"; }};
    }};
    processor {{
      type = "rpc_pkcs11";
      filter_config = "{folder}/filter.conf";
      use_ssl = false;
    }};
    workload_manager {{
      type = "dynamic";
      max_jobs_per_thread = 1;
      min_free_jobs_capacity = 1;
      max_free_jobs_capacity = 1;
      max_threads = 100;
    }};
  }};
}}
"""


class TriedCamlCrush(TriedToken):
    """The server has SoftHSM, by way of pkcs11-spy, which counts there."""

    title = "caml-crush, a network HSM"
    packages = ("caml-crush-server", "softhsm2")
    module = next(Path("/usr/lib").glob("*-linux-gnu/caml-crush/libp11clientunix.so"))

    def __init__(self) -> None:
        self.home = Machine()
        token = Token(self.home, self.label)
        self.publics = {kind: token.add(kind) for kind in KINDS}
        self._spy = Spy(self.home, softhsm.MODULE)
        self._socket = self.home.folder / "hsm.sock"
        (self.home.folder / "netplex").mkdir()
        self.home.write(
            "filter.conf", f'debug = 0\nmodules = [("softhsm", "{spy.MODULE}")]\nlog_subchannel = filter\n'
        )
        self._configuration = self.home.write(
            "netplex.conf", _NETPLEX.format(folder=self.home.folder, socket=self._socket)
        )
        self.home.env |= {"PKCS11PROXY_LIBNAME": "softhsm", "PKCS11PROXY_SOCKET_PATH": str(self._socket)}
        self.home.register("caml-crush", f"module: {self.module}")
        self.bring_back()

    @property
    def wrong_pins(self) -> int:
        return self._spy.wrong_pins

    def take_away(self) -> None:
        self._server.stop()

    def bring_back(self) -> None:
        self._server = self.home.start("pkcs11proxyd", "-fg", "-conf", self._configuration, env=self._spy.env)
        eventually(self._listens, "pkcs11proxyd listens")

    def _listens(self) -> bool:
        assert self._server.running, self._server.log
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self._socket)) == 0
