"""Memory and speed of a fit on more rows than fit into memory.

    python benchmarks/out_of_core.py --gigabytes 20 --folder /somewhere/with/room

A file of so many gigabytes of float32 rows (20: 6.4 million of 784) is written block by
block, read as a memory map, and deleted at the end, whatever happens. In a process of its
own a small DeepAEClustering is fitted to it, one epoch of pretraining and one of joint
training, and predicts; the table shows the most anonymous memory that the process held
beyond what it held after its imports (pages of the file are not counted: the system takes
them back when it needs them). In another process the same estimator is fitted to the first
rows of the file, mapped and in memory, in turns: the ratio is the median over turns of
their seconds. Both start from given centres, since k-means sees all rows in memory but a
sample of the mapped ones.

Every run appends a row to ``benchmarks/results/out_of_core.jsonl``; the table is made of
the last row of each size.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning

import skaecm
from skaecm import DeepAEClustering

RESULTS = Path(__file__).parent / "results" / "out_of_core.jsonl"
TABLE = RESULTS.with_suffix(".txt")

WIDTH = 784
K = 10
BLOCK_ROWS = 2**13
SECONDS_BETWEEN_LOOKS = 0.02


def write_rows(path, n_rows):
    """Round clusters in float32 at ``path``, with never more than a block in memory."""
    rng = np.random.default_rng(0)
    centers = rng.random((K, WIDTH), dtype=np.float32)
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, WIDTH)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n_rows, BLOCK_ROWS):
            size = min(BLOCK_ROWS, n_rows - start)
            block = rng.standard_normal((size, WIDTH), dtype=np.float32)
            block += centers[rng.integers(K, size=size)]
            block.tofile(file)


def make_model(**params):
    """An autoencoder so small that reading is a good part of the work."""
    return DeepAEClustering(
        K, hidden_layer_sizes=(32,), pretrain_iter=1, max_iter=1, random_state=0, **params
    )


def anonymous_memory():
    """MiB of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1024


class Peak:
    """The most anonymous memory within a block, looked at by a thread."""

    def __enter__(self):
        self.mib = anonymous_memory()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self):
        while not self.ended.wait(SECONDS_BETWEEN_LOOKS):
            self.mib = max(self.mib, anonymous_memory())

    def __exit__(self, *exception):
        self.ended.set()
        self.thread.join()


def fit_whole(path):
    """Seconds and peak memory of a fit on all rows, and of what it predicts."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    imported = anonymous_memory()
    X = np.load(path, mmap_mode="r")
    figures = {"rows": len(X)}
    with Peak() as peak:
        begin = time.perf_counter()
        model = make_model().fit(X)
        figures["fit_seconds"] = time.perf_counter() - begin
        begin = time.perf_counter()
        labels = model.predict(X)
        figures["predict_seconds"] = time.perf_counter() - begin
    assert np.array_equal(labels, model.labels_)
    figures["fit_rows_per_second"] = len(X) / figures["fit_seconds"]
    figures["predict_rows_per_second"] = len(X) / figures["predict_seconds"]
    return figures | {"imported_mib": imported, "peak_above_import_mib": peak.mib - imported}


def fit_slice(path, n_rows, turns):
    """Rows a second of fits on the first rows, mapped and in memory, and their ratio."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    mapped = np.load(path, mmap_mode="r")[:n_rows]
    held = np.array(mapped)
    model = make_model(init=held[:K])
    seconds = {"mapped": [], "held": []}
    for turn in range(turns):
        for name, X in [("mapped", mapped), ("held", held)][:: -1 if turn % 2 else 1]:
            begin = time.perf_counter()
            model.fit(X)
            seconds[name].append(time.perf_counter() - begin)
    mapped, held = np.array(seconds["mapped"]), np.array(seconds["held"])
    return {
        "slice_rows": n_rows,
        "slice_rows_per_second": n_rows / np.median(mapped),
        "in_memory_rows_per_second": n_rows / np.median(held),
        "seconds_over_in_memory": np.median(mapped / held),
    }


def in_new_process(function, *arguments):
    """What ``function`` gives in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def run(gigabytes, folder, slice_gigabytes, turns):
    """All figures of one size."""
    row_bytes = 4 * WIDTH
    n_rows = int(gigabytes * 1e9 / row_bytes)
    n_slice = min(n_rows, int(slice_gigabytes * 1e9 / row_bytes))
    with tempfile.TemporaryDirectory(dir=folder, prefix="skaecm-") as temporary:
        path = Path(temporary) / "rows.npy"
        begin = time.perf_counter()
        write_rows(path, n_rows)
        figures = {"write_seconds": time.perf_counter() - begin}
        figures |= in_new_process(fit_whole, path)
        figures |= in_new_process(fit_slice, path, n_slice, turns)
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def format_table(rows):
    """The figures of every size."""
    lines = []
    for row in rows:
        lines.append(f"{row['gigabytes']:g} GB of float32, {row['threads']} threads")
        lines += [f"    {name:28s} {value:g}" for name, value in row["figures"].items()]
    return "\n".join(lines)


def main():
    """Run, keep the row, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=20, help="size of the file")
    parser.add_argument("--folder", type=Path, help="where to write it, by default the system's")
    parser.add_argument("--slice", type=float, default=1, help="gigabytes also held in memory")
    parser.add_argument("--turns", type=int, default=3, help="fits of the slice of each kind")
    arguments = parser.parse_args()
    # Whoever ends the process ends it as an exception does, which deletes the file.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    row = {
        "gigabytes": arguments.gigabytes,
        "figures": run(arguments.gigabytes, arguments.folder, arguments.slice, arguments.turns),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    last = {row["gigabytes"]: row for row in rows}
    TABLE.write_text(format_table([last[size] for size in sorted(last)]) + "\n")
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()
