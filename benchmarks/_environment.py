"""The interpreter of an environment of its own, for packages that are compared with."""

import os
import subprocess
import venv


def environment_python(folder, packages):
    """The interpreter of the environment in ``folder``, made anew unless it has ``packages``."""
    folder = folder.resolve()
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    installed = folder / "installed.txt"
    wanted = "\n".join(packages)
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        installed.write_text(wanted)
    return python
