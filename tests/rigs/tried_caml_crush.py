"""caml-crush: a PKCS#11 module whose token is behind a server, like a network HSM."""

from __future__ import annotations

from pathlib import Path

from rigs import spy
from rigs.tried_server import TriedServer
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


class TriedCamlCrush(TriedServer):
    """The server is pkcs11proxyd."""

    title = "caml-crush, a network HSM"
    packages = ("caml-crush-server", "softhsm2")
    module = next(Path("/usr/lib").glob("*-linux-gnu/caml-crush/libp11clientunix.so"))

    def __init__(self) -> None:
        super().__init__(*KINDS)
        (self.home.folder / "netplex").mkdir()
        self.home.write(
            "filter.conf", f'debug = 0\nmodules = [("softhsm", "{spy.MODULE}")]\nlog_subchannel = filter\n'
        )
        self._configuration = self.home.write(
            "netplex.conf", _NETPLEX.format(folder=self.home.folder, socket=self.socket)
        )
        self.home.env |= {"PKCS11PROXY_LIBNAME": "softhsm", "PKCS11PROXY_SOCKET_PATH": str(self.socket)}
        self.home.register("caml-crush", f"module: {self.module}")
        self.bring_back()

    @property
    def server(self) -> tuple[str | Path, ...]:
        return "pkcs11proxyd", "-fg", "-conf", self._configuration
