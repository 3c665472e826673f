"""The rule by which polkit lets a user use smart cards over ssh, or a service's user."""

from __future__ import annotations

import json
import re
from pathlib import Path

_RULES = Path("/etc/polkit-1/rules.d")


def polkit_rule(user: str) -> tuple[Path, str]:
    """The file and the text of a rule: the user of this name may use readers and cards."""
    rule = (
        f"polkit.addRule(function(action, subject) {{ if (subject.user == {json.dumps(user)}"
        ' && action.id.indexOf("org.debian.pcsc-lite.access_") == 0) return polkit.Result.YES; });'
    )
    return _RULES / f"50-pcscd-{re.sub(r'[^A-Za-z0-9._-]', '-', user)}.rules", rule
