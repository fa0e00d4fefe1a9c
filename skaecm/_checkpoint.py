"""Keeping a fit while it runs: a folder of two files, and how a fit goes on from them.

The files are written in turns, each as a whole or not at all, so that the newest and the
one before are always there. A file holds who the fit is (`_identity.py`), its seeds, the
state of every phase that the present run needs, and the best run that is finished. What
follows from these without training is computed again. Nothing in it depends on how many
processes train.
"""

import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, final

import joblib
import sklearn
import torch
from torch import Tensor

from ._documents import pack, unpack, verify, versions
from ._extras import need
from ._files import write_whole
from ._modules import ClusteringNetwork
from ._ranks import ALONE, Ranks
from ._stored_network import differences, plain_state, whole_state
from ._tensors import rest_on_cpu
from ._training import LossNotFinite, Training
from ._values import NotKept, Reader, Writer
from ._version import __version__

# Raised when a checkpoint of today could not be gone on from by the code of before.
FORMAT = 3

# The name of the document in a file, and those of the two files.
MARK = "skaecm-checkpoint"
NAMES = ("checkpoint-0.skaecm", "checkpoint-1.skaecm")

# The packages that stand between a fit and the line of the user's that called it.
BETWEEN = (__file__, joblib.__file__, sklearn.__file__)


@final
@dataclass(frozen=True)
class Checkpoint:
    """Where a fit is kept while it runs, and how often.

    The same call of `fit` made again goes on from there, and ends bit for bit where a fit
    without an interruption ends. Needs safetensors
    (``pip install "skaecm[persistence]"``). See the user guide on long runs.

    Parameters
    ----------
    folder : str or path-like
        A folder for one fit alone. It is made if it is missing.
    minutes : float, default=0
        Least time between two writes, in minutes. At most so much work is lost, and the
        epochs until the next write.
    epochs : int, default=1
        Least number of epochs between two writes.

    Raises
    ------
    TypeError
        If `folder` is no path.
    ValueError
        If `minutes` is negative, or `epochs` no integer of at least 1.

    See Also
    --------
    save : Keep a finished fit in a file.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> import skaecm
    >>> X = load_iris().data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = skaecm.Checkpoint(folder, minutes=10)
    ...     model = skaecm.ClusteringModuleGMM(k=3, random_state=0, checkpoint=checkpoint).fit(X)
    ...     again = skaecm.ClusteringModuleGMM(k=3, random_state=0, checkpoint=checkpoint).fit(X)
    >>> again.loss_ == model.loss_  # read from the folder
    True
    """

    folder: str | os.PathLike[str]
    minutes: float = 0.0
    epochs: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | os.PathLike):
            raise TypeError(
                f"folder of a Checkpoint must be a str or path-like, but is {self.folder!r}."
            )
        if not self.minutes >= 0:
            raise ValueError(
                f"minutes of a Checkpoint must be zero or more, but is {self.minutes!r}."
            )
        if not isinstance(self.epochs, Integral) or self.epochs < 1:
            raise ValueError(
                f"epochs of a Checkpoint must be an integer of at least 1, but is {self.epochs!r}."
            )


@final
class Journal:
    """What a fit has done so far, and the folder where it is kept.

    Parameters
    ----------
    checkpoint : Checkpoint
        The folder, and how often to write.
    identity : dict of str
        Who the fit is.
    seeds : list of int
        Its seeds. Those in the folder, if there are any, take their place.
    ranks : Ranks, default=ALONE
        The processes that fit together. The first one reads and writes, for all of them.

    Attributes
    ----------
    seeds : list of int
        One for what all runs share, and one a run.
    n_done : int
        Number of finished runs.
    best : dict or None
        The best of them: the state of its network, its prior, and what a `Run` holds beside it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        identity: dict[str, str],
        seeds: list[int],
        ranks: Ranks = ALONE,
    ):
        self.ranks = ranks
        self.folder = Path(checkpoint.folder)
        self.seconds = 60.0 * checkpoint.minutes
        self.epochs = checkpoint.epochs
        self.n_unwritten = 0
        self.identity = identity
        self.seeds = seeds
        self.n_done = 0
        self.best: dict[str, Any] | None = None
        # A phase that runs as it is, one that has ended or is to go on as its state.
        self.phases: dict[str, Training | dict[str, Any]] = {}
        self.number = -1
        self.has_warned = False
        self.is_closed = False
        with ranks.agree():
            if ranks.rank == 0:
                self._open()
        found = self.seeds, self.n_done, self.best, self.phases
        self.seeds, self.n_done, self.best, self.phases = ranks.broadcast(found)
        self.written = time.monotonic()

    def _open(self) -> None:
        """Take what is in the folder, or begin it."""
        need("safetensors", "persistence", "checkpoint")
        with self._usable_folder():
            os.makedirs(self.folder, exist_ok=True)
            with TemporaryFile(dir=self.folder):
                """So it can be written to."""
        found = self._newest()
        if found is not None:
            self._take(*found)
        with self._usable_folder():
            # What was left of writes that were killed.
            for name in NAMES:
                for beside in self.folder.glob(f".{name}.*"):
                    beside.unlink(missing_ok=True)
            if found is None:
                writer = Writer()
                self._write(self._document(writer), writer.tensors)

    # In a fit
    # --------

    def resume(self, training: Training) -> None:
        """Put a training that begins where it was left off."""
        for name, phase in list(self.phases.items()):
            if name != training.phase and isinstance(phase, Training):
                # It takes no more steps, and what it trained will be trained further.
                ended = plain_state(rest_on_cpu(phase.state_dict()))
                moments = [None] * len(ended["optimizer"])
                self.phases[name] = ended | {"optimizer": moments, "labels": None}
        state = self.phases.get(training.phase)
        if isinstance(state, dict):
            try:
                training.load_state_dict(whole_state(training, state))
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(self._other_network(str(error))) from None
            self.phases[training.phase] = training

    def keep(self, training: Training, *, stopped: bool) -> None:
        """An epoch has ended: write it if it is time to, or the last before a stop.

        After a stop nothing more is written, so that the fit can go on from there.
        """
        self.phases[training.phase] = training
        self.n_unwritten += 1
        is_due = self.n_unwritten >= self.epochs and time.monotonic() - self.written >= self.seconds
        if not self.is_closed and (stopped or is_due):
            self._keep()
        self.is_closed = self.is_closed or stopped

    def end_run(self, network: ClusteringNetwork, about: dict[str, Any]) -> None:
        """One more run is finished; ``network`` is the best so far, which is ``about``."""
        if self.is_closed:
            return
        self.n_done += 1
        kept = {"network": network.state_dict(), "alpha": network.alpha}
        self.best = about | rest_on_cpu(kept)
        for name in ("module", "training"):
            self.phases.pop(name, None)
        self._keep()

    def restore(self, network: ClusteringNetwork) -> dict[str, Any]:
        """Fill ``network`` with the best run; what else is known of that."""
        assert self.best is not None
        about = dict(self.best)
        state, alpha = about.pop("network"), about.pop("alpha")
        wrong = differences(network.state_dict(), state)
        if wrong:
            raise ValueError(self._other_network(", ".join(wrong[:3])))
        network.load_state_dict(state)
        network.alpha = alpha.to(network.alpha)
        return about

    @contextmanager
    def told_of_divergence(self) -> Iterator[None]:
        """Where training diverges, a smaller learning rate may go on from the last state."""
        try:
            yield
        except LossNotFinite as error:
            if not self.ranks.first(self._note_divergence):
                raise
            raise LossNotFinite(
                f"{error} The last finite state is kept in checkpoint={str(self.folder)!r}: with a "
                "smaller learning_rate_init and nothing else changed, fit goes on from there."
            ) from None

    def _note_divergence(self) -> bool:
        """Whether a state to go on from could be marked as what diverged."""
        found = self._newest()
        if found is None:
            return False
        document, tensors = found
        try:
            self._write(document | {"has_diverged": True}, tensors)
        except OSError:
            return False
        return True

    # The folder
    # ----------

    @contextmanager
    def _usable_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"checkpoint={str(self.folder)!r} cannot be used: {error.strerror or error}. Give "
                "a folder that can be made and written to, with space on its disk."
            ) from None

    def _newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest good file, as it was written; a warning for every damaged one."""
        found = []
        damaged = []
        for name in NAMES:
            path = self.folder / name
            if not os.path.lexists(path):
                continue
            try:
                document, tensors = unpack(path, mark=MARK, writer="a fit", reader="checkpoint")
                verify(document, tensors)
                found.append((document["number"], document, tensors))
            except Exception as error:  # whatever a file of any content may lead to
                damaged.append(f"{name} ({error})")
        newest = max(found, key=lambda one: one[0], default=None)
        if damaged:
            rest = (
                "The fit starts anew."
                if newest is None
                else "The other file is good, and the fit goes on from it."
            )
            warnings.warn(
                f"checkpoint={str(self.folder)!r} is damaged: {', '.join(damaged)}. {rest}",
                UserWarning,
                stacklevel=levels_up(),
            )
        return None if newest is None else newest[1:]

    def _take(self, document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go on from what was read, if it is of this fit."""
        self._check_same(document)
        reader = Reader(tensors)
        self.number = document["number"]
        self.seeds = document["seeds"]
        self.n_done = document["n_done"]
        self.best = reader.decode(document["best"])
        self.phases = {name: reader.decode(code) for name, code in document["phases"].items()}

    def _check_same(self, document: dict[str, Any]) -> None:
        folder = f"checkpoint={str(self.folder)!r}"
        if document["format"] != FORMAT:
            raise ValueError(
                f"{folder} has format {document['format']}, written by skaecm "
                f"{document['versions']['skaecm']}, but skaecm {__version__} goes on from format "
                f"{FORMAT}. Give another folder."
            )
        theirs, ours = document["identity"], self.identity
        different = [
            name for name in dict.fromkeys([*theirs, *ours]) if theirs.get(name) != ours.get(name)
        ]
        rate = "learning_rate_init"
        is_slower = different == [rate] and float(ours[rate]) < float(theirs[rate])
        if is_slower and document["has_diverged"]:
            return
        if different:
            what = "; ".join(
                f"{name} was {theirs.get(name)}, is {ours.get(name)}" for name in different
            )
            raise ValueError(
                f"{folder} holds another fit, and is left as it is: {what}. Give another folder, "
                "or delete this one to train anew."
            )

    def _other_network(self, what: str) -> str:
        return (
            f"checkpoint={str(self.folder)!r} holds another network than this fit builds: {what}. "
            "An autoencoder of your own must be the one of the fit. Give another folder, or "
            "delete this one to train anew."
        )

    def _keep(self) -> None:
        """Write the present state, unless a weight in it is not finite."""
        if self.ranks.rank > 0:
            return
        trained = [phase for phase in self.phases.values() if isinstance(phase, Training)]
        if all(are_finite(training.module.state_dict()) for training in trained):
            writer = Writer()
            try:
                document = self._document(writer)
            except NotKept as error:
                self._warn(str(error))
            else:
                self._write_or_warn(document, writer.tensors)
        self.written = time.monotonic()
        self.n_unwritten = 0

    def _document(self, writer: Writer) -> dict[str, Any]:
        phases = {
            name: plain_state(rest_on_cpu(phase.state_dict()))
            if isinstance(phase, Training)
            else phase
            for name, phase in self.phases.items()
        }
        return {
            "format": FORMAT,
            "versions": versions(),
            "identity": self.identity,
            "seeds": self.seeds,
            "n_done": self.n_done,
            "best": writer.encode(self.best, "best"),
            "phases": {name: writer.encode(state, name) for name, state in phases.items()},
            "has_diverged": False,
        }

    def _write(self, document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Write a file in the place of the older one."""
        numbered = document | {"number": self.number + 1}
        path = self.folder / NAMES[numbered["number"] % len(NAMES)]
        write_whole(path, pack(numbered, tensors, mark=MARK, writer="checkpoint"))
        self.number += 1

    def _write_or_warn(self, document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """A fit goes on where nothing can be written, and tries again later."""
        try:
            self._write(document, tensors)
        except OSError as error:
            self._warn(error.strerror or str(error))

    def _warn(self, reason: str) -> None:
        """Once a fit, say that it cannot be kept."""
        if not self.has_warned:
            self.has_warned = True
            warnings.warn(
                f"checkpoint={str(self.folder)!r} could not be written: {reason}. The fit goes on, "
                "and tries again later; if it is stopped before it can write, it goes on from "
                "the last checkpoint that is there.",
                UserWarning,
                stacklevel=levels_up(),
            )


def levels_up() -> int:
    """The stacklevel, for who calls this, of the line of the user's that called a fit."""
    inside = tuple(os.path.join(os.path.dirname(file), "") for file in BETWEEN)
    frames = traceback.walk_stack(sys._getframe(1))
    files = [frame.f_code.co_filename for frame, _ in frames]
    return next((i for i, file in enumerate(files, 1) if not file.startswith(inside)), 1)


def are_finite(state: dict[str, Any]) -> bool:
    """Whether all floating-point tensors of a state are finite."""
    return all(
        bool(torch.isfinite(value).all())
        for value in state.values()
        if isinstance(value, Tensor) and value.is_floating_point()
    )
