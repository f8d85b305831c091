"""Libraries that a real viewer needs and pip cannot bring: installed on Debian as root, otherwise named."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

PACKAGES = (
    "xvfb", "xauth", "libegl1", "libgl1", "libgl1-mesa-dri", "libxkbcommon-x11-0", "libxcb-cursor0", "libxcb-icccm4",
    "libxcb-keysyms1", "libxcb-shape0", "libxcb-xinerama0", "libdbus-1-3",
)  # fmt: skip


LIBRARIES = (
    "libEGL.so.1", "libGL.so.1", "libxkbcommon-x11.so.0", "libxcb-cursor.so.0", "libxcb-icccm.so.4",
    "libxcb-keysyms.so.1", "libxcb-shape.so.0", "libxcb-xinerama.so.0", "libdbus-1.so.3",
)  # fmt: skip
"""What the packages bring, under the names that they have on every Linux."""
PROGRAMS = ("Xvfb", "xauth")


def missing() -> list[str]:
    """Packages that are not installed, by the package manager's own records."""
    return [name for name in PACKAGES if "install ok installed" not in _status(name)]


def _status(package: str) -> str:
    query = ["dpkg-query", "--show", "--showformat=${Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout


def absent() -> list[str]:
    """Libraries and programs that are not found, on systems with another package manager."""
    return [*(p for p in PROGRAMS if not shutil.which(p)), *(name for name in LIBRARIES if not _loads(name))]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def main() -> int:
    """Always 0: without these libraries the tests of widgets are skipped, all others run."""
    if not sys.platform.startswith("linux"):
        return 0
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        if names := absent():
            sys.stderr.write(
                f"The viewer needs {', '.join(names)}. Install them with the package manager of this system\n"
            )
        return 0
    wanted = missing()
    if not wanted:
        return 0
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *wanted]
    if os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
        if subprocess.run([*install[:1], "-qq", *install[1:]], env=environment, check=False).returncode == 0:
            return 0
    sys.stderr.write(f"The viewer needs libraries of the system. Install them with:\n  sudo {' '.join(install)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
