"""Reading the configuration again while the agent runs (SIGHUP, `systemctl --user reload`)."""

from __future__ import annotations

import logging

from replug.agent.config import ConfigError, changes_needing_restart
from replug.agent.config_file import config_path, load_config
from replug.agent.keyring import Keyring
from replug.token.offload import TooManyThreadsError, in_daemon_thread

log = logging.getLogger(__name__)


async def reload_configuration(keyring: Keyring) -> None:
    """Have `keyring` go by what the file says now; by what it said before if that makes no sense."""
    try:
        config = await in_daemon_thread(lambda: load_config(config_path()))
    except (ConfigError, TooManyThreadsError) as error:
        log.error("the configuration was not read again: %s", error)
        return
    old, keyring.options = keyring.options.config, keyring.options.with_config(config)
    for name in changes_needing_restart(old, config):
        log.warning("takes effect when the agent is started again", extra={"setting": name})
    await keyring.certificate_files.look()
    await keyring.serve_configured()
    log.info("configuration read again")
