"""Fits that are killed, resumed and compared bit for bit with those that were left alone.

    python benchmarks/drill.py [how many] [--seed 0]

Every fit is a process of its own with a checkpoint after every epoch, killed by SIGKILL
once or twice: at a random moment, or inside a write of the checkpoint, which then waits to
be killed with half of the bytes on the disk, all of them, or just before or after the file
gets its name. What the last process ends with is saved by ``skaecm.save`` and compared with
the file of a fit without a checkpoint, byte for byte: weights, labels, history and all.

Then disks that are full and folders that cannot be written to, real ones where this may
mount them, else the nearest that there is: at the start they must be an error, on the way a
warning, either of which names the folder, and the result what it is.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent

# Where a write waits to be killed; "anywhere" is a random moment of the fit.
MOMENTS = ("anywhere", "anywhere", "half", "written", "before", "after")

# The write that waits is one of so many; every fit makes more.
WRITES = 12

# So long a process may take, in seconds.
LIMIT = 300


# A process
# ---------


def rows():
    """Rows of four clusters that touch, the same every time."""
    import numpy as np

    noise = np.random.RandomState(0).standard_normal((900, 16))
    return 3 * noise + 8 * np.eye(4, 16)[np.arange(900) % 4]


def make(name):
    """One of the fits of the drill, about a second long."""
    from skaecm import ClusteringModuleGMM, DeepAEClustering

    endless = {"tol": 0.0, "n_iter_no_change": 1000, "random_state": 0}
    deep = {"k": 4, "hidden_layer_sizes": (32,), "pretrain_iter": 8, "max_iter": 8} | endless
    return {
        "deep": lambda: DeepAEClustering(**deep),
        "published": lambda: DeepAEClustering(**deep | {"init": "pinv", "max_iter": 4}),
        "pairs": lambda: DeepAEClustering(**deep | {"n_neighbors": 5, "max_iter": 5}),
        "mixture": lambda: ClusteringModuleGMM(
            k=4, n_init=3, augment="noise", max_iter=15, **endless
        ),
    }[name]()


FITS = ("deep", "mixture", "published", "pairs")


def wait_to_be_killed():
    """Say so, and wait."""
    print("waiting", flush=True)
    time.sleep(LIMIT)


def wait_inside_a_write(moment, number):
    """Let write ``number`` of the checkpoint wait at a moment."""
    fsync, replace = os.fsync, os.replace
    n_written = 0

    def slow_fsync(file):
        nonlocal n_written
        n_written += 1
        if moment == "half" and n_written == number:
            os.ftruncate(file, os.fstat(file).st_size // 2)
            wait_to_be_killed()
        fsync(file)
        if moment == "written" and n_written == number:
            wait_to_be_killed()

    def slow_replace(source, target):
        if moment == "before" and n_written == number:
            wait_to_be_killed()
        replace(source, target)
        if moment == "after" and n_written == number:
            wait_to_be_killed()

    os.fsync, os.replace = slow_fsync, slow_replace


def fit(job):
    """What one process does; its last line says how it went."""
    sys.path.insert(0, str(ROOT))
    import skaecm

    X, model = rows(), make(job["fit"])
    model.set_params(checkpoint=job.get("folder"))
    if "moment" in job:
        wait_inside_a_write(job["moment"], job["number"])
    if "largest" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest"], -1))
    if "command" in job:
        model.callback = lambda row: (
            row["epoch"] == 3 and subprocess.run(job["command"], check=True) is None
        )
    print("fitting", flush=True)
    start, error = time.perf_counter(), None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(X)
        except ValueError as refusal:
            error = str(refusal)
    seconds = time.perf_counter() - start
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    if error is None:
        model.callback = None
        skaecm.save(model, job["result"])
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    print(json.dumps({"seconds": seconds, "error": error, "warnings": said}), flush=True)


def start(job):
    """A process that has begun to fit."""
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if line.strip() != "fitting":
        raise RuntimeError(f"{job} did not begin to fit: {line!r}, {process.wait(LIMIT)}")
    return process


def end(process):
    """What a process says that ends by itself."""
    said, _ = process.communicate(timeout=LIMIT)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {said}")
    return json.loads(said.splitlines()[-1])


# Kills
# -----


def whole(name, folder):
    """The file of a fit that is left alone, and how long the fit takes in seconds."""
    result = folder / f"{name}.skaecm"
    seconds = end(start({"fit": name, "result": str(result)}))["seconds"]
    return result.read_bytes(), seconds


def kill(job, moment, seconds, dice):
    """Kill a fit at a moment; whether it was there to be killed."""
    if moment == "anywhere":
        process = start(job)
        time.sleep(dice.uniform(0, seconds))
    else:
        number = dice.randint(1, WRITES)
        process = start(job | {"moment": moment, "number": number})
        process.stdout.readline()  # "waiting", or how it went
    process.kill()
    process.communicate(timeout=LIMIT)
    return process.returncode == -9


def drill_kill(i, seed, folder, expected):
    """Kill and resume fit ``i``: its name, the moments, whether it ran, and whether it is equal."""
    name, dice = FITS[i % len(FITS)], random.Random(f"{seed} {i}")
    content, seconds = expected[name]
    job = {"fit": name, "folder": str(folder / str(i)), "result": str(folder / f"{i}.skaecm")}
    moments = dice.sample(MOMENTS, 1 + (i % 5 == 4))
    kills = [kill(job, moment, seconds, dice) for moment in moments]
    said = end(start(job))
    is_equal = Path(job["result"]).read_bytes() == content and not said["warnings"]
    return name, moments, any(kills), is_equal


def drill_kills(n_fits, seed, say=print):
    """Kill and resume fits; how many there were to kill, and how many ended as they should."""
    n_killed = n_equal = 0
    with TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        names = FITS[:n_fits]
        expected = dict(zip(names, pool.map(partial(whole, folder=folder), names), strict=True))
        one = partial(drill_kill, seed=seed, folder=folder, expected=expected)
        for i, (fit, moments, is_killed, is_equal) in enumerate(pool.map(one, range(n_fits)), 1):
            n_killed += is_killed
            n_equal += is_equal
            where = " and ".join(moments)
            say(f"{i:3} {fit:10} killed {where:22} {'equal' if is_equal else 'NOT equal'}")
    return n_killed, n_equal


# Disks
# -----


def mounted(folder, *options):
    """Whether a file system of its own is now at ``folder``, in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    try:
        return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def drill_disks(say=print):
    """Fits on disks that are full or cannot be written to; whether all went as it should."""
    outcomes = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        content, _ = whole("deep", folder)
        result = folder / "result.skaecm"
        mounts = []

        def check(title, job, reason, is_error):
            result.unlink(missing_ok=True)
            said = end(start({"fit": "deep", "result": str(result)} | job))
            told = [said["error"] or ""] if is_error else said["warnings"]
            is_told = len(told) == 1 and f"checkpoint={job['folder']!r}" in told[0]
            is_right = is_told and reason in told[0]
            is_right &= not result.exists() if is_error else result.read_bytes() == content
            outcomes.append(is_right)
            say(
                f"{title}:", *told, "as it should" if is_right else "NOT as it should", sep="\n    "
            )

        try:
            small, full, closing = (folder / part for part in ("small", "full", "closing"))
            # The start of a fit takes one block, and a state of training more.
            if mounted(small, "size=32k"):
                mounts += [small]
                check("disk full on the way", {"folder": str(small)}, "No space left", False)
            else:
                job = {"folder": str(small), "largest": 10000}
                check("file too large on the way", job, "File too large", False)
            if mounted(full, "size=4k"):
                mounts += [full]
                (full / "other").write_bytes(bytes(4096))
                check("disk full at the start", {"folder": str(full)}, "No space left", True)
            else:
                job = {"folder": str(full), "largest": 100}
                check("file too large at the start", job, "File too large", True)
            if mounted(closing, "size=4m"):
                mounts += [closing]
                remount = ["mount", "-o", "remount,ro", str(closing)]
                job = {"folder": str(closing), "command": remount}
                check("read-only on the way", job, "Read-only file system", False)
                job = {"folder": str(closing / "other")}
                check("read-only at the start", job, "Read-only file system", True)
            check("no place for a folder", {"folder": "/proc/none"}, "", True)
        finally:
            for mount in mounts:
                subprocess.run(["umount", str(mount)], check=True)
    return all(outcomes)


def main():
    """Run the drill; an exit code of 1 if a fit was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("n_fits", nargs="?", type=int, default=50, help="fits to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        fit(json.loads(arguments.job))
        return 0
    start_time = time.perf_counter()
    n_killed, n_equal = drill_kills(arguments.n_fits, arguments.seed)
    disks = drill_disks()
    print(f"{n_killed} of {arguments.n_fits} killed while they ran")
    print(f"{n_equal} of {arguments.n_fits} equal")
    print(f"disks: {'as they should' if disks else 'NOT as they should'}")
    print(f"{time.perf_counter() - start_time:.0f} s")
    return 0 if disks and n_equal == arguments.n_fits else 1


if __name__ == "__main__":
    sys.exit(main())
