"""What FIDO keys of web sites sign: what ssh signs, and nothing that a web site could be shown.

An authenticator signs for a web site what a browser gives it. Whoever uses the agent could have it sign that
with a key whose application is a web site's [ssh-agent.c, check_websafe_message_contents].
"""

from __future__ import annotations

from collections.abc import Sequence

from replug.agent.config.options import Options
from replug.agent.keys.identity import Identity, SecurityKeyIdentity
from replug.agent.keys.refusal import RequestRefusedError
from replug.protocol.patterns import matches_list
from replug.protocol.purpose import Login, Purpose, UnboundLogin
from replug.protocol.signed_data import SshSignature
from replug.protocol.visible_text import visible


def refuse_unsafe(candidates: Sequence[Identity], purpose: Purpose, options: Options) -> None:
    """Raise RequestRefusedError if a key of a web site is to sign what is neither a login nor an SSHSIG."""
    if not options.restrict_websafe or isinstance(purpose.signed, Login | UnboundLogin | SshSignature):
        return
    for held in candidates:
        if isinstance(held, SecurityKeyIdentity) and not matches_list(
            held.public.application, options.websafe_allow
        ):
            raise RequestRefusedError(
                f"a FIDO key for {visible(held.public.application)} signs logins and SSHSIG only",
                "start the agent with -O websafe-allow=PATTERNS to allow more",
            )
