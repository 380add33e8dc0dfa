"""Write the list of encoders that `trainables.net.known` reads.

python -m trainables.net.list_encoders    after a change of the versions of smp or timm
"""

from __future__ import annotations

import json
from typing import Any

from trainables.net.known import FILE, installed_versions
from trainables.net.models import encoder_names


def listing() -> dict[str, Any]:
    """The names of the libraries that are installed, with their versions."""
    return {"versions": installed_versions(), "names": encoder_names()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(listing(), indent=0) + "\n")
