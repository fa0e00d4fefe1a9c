"""Writing a file as a whole: it is there, or what was there before still is."""

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``; whatever stops it leaves an old file as it was.

    The bytes go to a new file in the same folder, which takes the place of the old
    one when all of them are on the disk. A symbolic link is followed.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}")
    try:
        with open(beside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        # The name that the user gave, not that of the file beside it.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
