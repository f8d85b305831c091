"""Runs a command inside a virtual screen where xvfb-run is found, otherwise as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def main(command: list[str]) -> int:
    """Exit code of the command."""
    environment = dict(os.environ)
    if xvfb := shutil.which("xvfb-run"):
        command = [xvfb, "-a", "-s", "-screen 0 1366x768x24", *command]
    elif sys.platform.startswith("linux") and not environment.get("DISPLAY"):
        environment.setdefault("QT_QPA_PLATFORM", "offscreen")
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
