"""`python native/build.py`: build the compiled hot path into this Python's environment.

Where there is no cargo it says so and leaves: everything works without. No toolchain is ever
fetched; where cargo has no linker, the wheel `ziglang` serves as one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WITHOUT = "Headwater works without its compiled part, only slower"


def main() -> int:
    """Build and install; 0 where there is nothing to build with."""
    if shutil.which("cargo") is None:
        print(f"no cargo on this machine: {WITHOUT}", file=sys.stderr)
        return 0
    print("building the compiled part (native/)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    environment = dict(os.environ)
    if shutil.which("cc") is None:
        subprocess.run([*pip, "ziglang"], check=True)
        environment |= _zig_as_linker()
    return subprocess.run([*pip, "--force-reinstall", str(HERE)], env=environment).returncode


def _zig_as_linker() -> dict[str, str]:
    """Cargo's settings for linking by `python -m ziglang cc`, by way of a script of one line."""
    script = HERE / "target" / "zig-cc"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ziglang cc "$@"\n')
    script.chmod(0o755)
    found = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = next(line for line in found.splitlines() if line.startswith("host: "))[6:]
    return {f"CARGO_TARGET_{host.upper().replace('-', '_')}_LINKER": str(script)}


if __name__ == "__main__":
    sys.exit(main())
