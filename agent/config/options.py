"""The options of a running agent, from the command line and the configuration file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from replug.agent.config.model import Config
from replug.protocol.constants import FINGERPRINT_HASHES

DEFAULT_PROVIDER_PATTERNS = Config.allowed_modules
DEFAULT_WEBSAFE_ALLOW = "ssh:*"


@dataclass(frozen=True)
class Options:
    """The settings the event loop needs; each defaults to what ssh-agent does without options.

    `provider_patterns` and `websafe_allow` are pattern lists for `replug.protocol.patterns`.
    """

    default_lifetime: int = 0
    """Seconds an identity without a lifetime of its own is kept; 0 keeps it for ever (-t)."""
    provider_patterns: str = DEFAULT_PROVIDER_PATTERNS
    """Real paths of the modules that clients may load (-P)."""
    allow_remote_pkcs11: bool = False
    """Whether a forwarded connection may load modules (-O allow-remote-pkcs11)."""
    restrict_websafe: bool = True
    """Whether FIDO keys outside `websafe_allow` sign only what ssh signs (-O no-restrict-websafe)."""
    websafe_allow: str = DEFAULT_WEBSAFE_ALLOW
    """FIDO applications that may sign anything (-O websafe-allow=)."""
    fingerprint_hash: str = FINGERPRINT_HASHES[0]
    """The hash of the fingerprints shown to the user (-E)."""
    debug: bool = False
    """Whether to log every step (-d)."""
    socket_activated: bool = False
    """Whether systemd made the socket; then SIGTERM is an orderly stop with exit status 0, not 2."""
    modules: tuple[str, ...] = Config.modules
    """The modules to serve without ssh-add if the configuration file does not say."""
    config: Config = field(default_factory=Config)
    """The configuration file."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """The options that the command line gave, such as `-t`: the file does not change what they set."""

    def with_config(self, config: Config) -> Options:
        """These options with what `config` says wherever the command line is silent."""
        return replace(
            self,
            config=config,
            default_lifetime=self.default_lifetime if "-t" in self.given else config.default_lifetime,
            provider_patterns=self.provider_patterns if "-P" in self.given else config.allowed_modules,
        )
