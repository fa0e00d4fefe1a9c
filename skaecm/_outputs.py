"""What a command leaves: whole files, all or none, none replaced unasked; standard output."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TextIO

# Folders beside the files in which they are written, before they get their names.
BESIDE = ".skaecm-"


class Output(NamedTuple):
    """A file to write: the option that names it, its path, and how the name may end."""

    option: str
    path: Path
    suffixes: tuple[str, ...] = ()


def check_outputs(outputs: Sequence[Output], *, force: bool, inputs: Sequence[str] = ()) -> None:
    """Raise now, not after the work, if a file cannot be written or is there already."""
    taken = {os.path.realpath(name): "what is read" for name in inputs if os.path.exists(name)}
    for option, path, suffixes in outputs:
        if suffixes and path.suffix.lower() not in suffixes:
            raise ValueError(f"{option} must end in {', '.join(suffixes)}, but is {str(path)!r}.")
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise ValueError(
                f"{option}: there is no folder {str(path.parent)!r} for {path.name}. Make it, or "
                "choose another."
            )
        if path.is_dir():
            raise ValueError(
                f"{option}: {str(path)!r} cannot be written: it is a folder. Choose another."
            )
        if str(target) in taken:
            raise ValueError(
                f"{option}: {str(path)!r} is also {taken[str(target)]}. Choose another."
            )
        if os.path.lexists(path) and not force:
            raise ValueError(
                f"{option}: {str(path)!r} is there already. Choose another, or give --force to "
                "replace it."
            )
        try:
            with TemporaryDirectory(prefix=BESIDE, dir=target.parent):
                """So the folder can be written to."""
        except OSError as error:
            raise ValueError(
                f"{option}: {str(path)!r} cannot be written: {error.strerror}. Choose another."
            ) from None
        taken[str(target)] = option


@contextmanager
def written_together(outputs: Sequence[Output]) -> Iterator[list[Path]]:
    """Paths to write to; the files get their names when the block has ended well."""
    targets = [Path(os.path.realpath(output.path)) for output in outputs]
    try:
        with ExitStack() as stack:
            folders = [
                stack.enter_context(TemporaryDirectory(prefix=BESIDE, dir=target.parent))
                for target in targets
            ]
            drafts = [
                Path(folder) / target.name for folder, target in zip(folders, targets, strict=True)
            ]
            yield drafts
            for draft, target in zip(drafts, targets, strict=True):
                os.replace(draft, target)
    except OSError as error:
        names = ", ".join(str(output.path) for output in outputs)
        raise RuntimeError(f"{names} could not be written: {error.strerror or error}.") from None


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output, written through at the end; BrokenPipeError where nobody reads on."""
    if sys.stdout is None:
        raise RuntimeError("There is no standard output to write to.")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise RuntimeError(f"Standard output could not be written: {error.strerror}.") from None
