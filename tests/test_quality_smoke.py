"""The quality benchmark: its table, its rows and its settings. No peers, no network."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from helpers import ROOT, blobs
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from skaecm import DeepAEClustering, _deep_start, _modules

FOLDER = ROOT / "benchmarks"
COMMITTED = FOLDER / "results" / "quality.jsonl"
OURS = "DeepAEClustering"


@pytest.fixture
def quality(monkeypatch, tmp_path):
    """The script as a module, with results of its own."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("quality", FOLDER / "quality.py")
    module = importlib.util.module_from_spec(spec)
    used = ("partners", "_device", "_environment", "_quality_engine", "_quality_table")
    for name in ("quality", *used):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "quality", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "quality.jsonl")
    monkeypatch.setattr(module, "TABLE", tmp_path / "quality.txt")
    return module


def row(quality, name, method, seed=0, acc=0.5, **more):
    """A made-up row."""
    return {
        "data": name,
        "method": method,
        "seed": seed,
        "settings": quality.settings_of(name, method),
        "n_rows": 100,
        "k": 10,
        "device": "cpu",
        "acc": acc,
        "nmi": acc,
        "ari": acc,
        "n_clusters": 10,
        "seconds": 10.0,
        "cpu_seconds": 20.0,
        **more,
    }


def keep(quality, rows):
    quality.RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))


def words_of(table, start):
    """The words of the lines of the table that begin so."""
    return [line.split() for line in table.splitlines() if line.strip().startswith(start)]


def test_table_gives_means_spreads_and_ranks(quality):
    images = f"{OURS}, images"
    keep(
        quality,
        [
            row(quality, "usps", OURS, 0, acc=0.8, epochs={"pretraining": 50, "training": 30}),
            row(quality, "usps", OURS, 1, acc=0.9, n_clusters=9, epochs={"training": 40}),
            row(quality, "usps", images, acc=0.95),
            row(quality, "usps", images, 7, acc=0.3),
            row(quality, "pendigits", images, 1, acc=0.4, device="a GPU"),
            row(quality, "usps", quality.SAME_LAYERS, acc=0.55, cpu_seconds=40.0),
            row(quality, "usps", "KMeans", acc=0.6, cpu_seconds=5.0),
            row(quality, "usps", "DEC", acc=0.6),
            row(quality, "usps", "VaDE", error="ValueError: NaN"),
            row(quality, "pendigits", OURS, 0, acc=0.5),
            row(quality, "pendigits", OURS, 1, acc=0.5, device="a GPU", cpu_seconds=1.0),
            row(quality, "pendigits", quality.SAME_LAYERS, acc=0.8),
            row(quality, "pendigits", "DEC", acc=0.7, device="a GPU"),
            row(quality, "mnist_70000", "DEC", acc=0.1),
        ],
    )
    table = quality.write_table()
    assert quality.TABLE.read_text() == table + "\n"
    data, means = table.split("Mean rank over data sets")
    usps, pendigits = data.split("pendigits:")
    measure = ["0.850", "+-", "0.050", "1"]
    assert words_of(usps, OURS + "  ") == [[OURS, "2", *3 * measure, "9", "60", "10", "20", "0.50"]]
    assert not words_of(data, images)
    assert words_of(usps, quality.SAME_LAYERS)[0][3:7] == ["0.550", "+-", "0.000", "-"]
    # Equal means share a rank, and what gave no labels comes last.
    assert words_of(usps, "KMeans")[0][5] == words_of(usps, "DEC")[0][5] == "2.5"
    assert words_of(usps, "KMeans")[0][-4:] == ["-", "10", "5", "0.12"]
    assert "no labels: ValueError: NaN" in usps
    # What a run cost is told of a CPU only.
    assert words_of(pendigits, OURS)[0][-3:] == ["10", "20", "1.00"]
    assert words_of(pendigits, "DEC")[0][-3:] == ["-", "-", "-"]
    # The best first; a set outside the ranks is shown and does not count.
    expected = {OURS: (2, 1.5), "DEC": (2, 1.75), "KMeans": (1, 2.5), "VaDE": (1, 4.0)}
    means, changes = means.split("\n\nAblations: ")
    means, of_twin = means.split(f"In the place of {OURS}:")
    lines = [line.split() for line in means.splitlines()[2:]]
    assert [line[0] for line in lines] == list(expected)
    for line, (n_sets, rank) in zip(lines, expected.values(), strict=True):
        assert (int(line[1]), float(line[5])) == (n_sets, pytest.approx(rank, abs=0.005))
    (line,) = words_of(of_twin, quality.SAME_LAYERS)
    assert line[-6:-1] == ["2", *3 * ["2.00"], "2.00"]
    assert "mnist_70000: 100 rows" in table
    # A change beside the default with the same seeds, where there are such, and its time on CPUs.
    gains = ["+0.150", "+0.150", "-0.100", "-0.100"]
    assert words_of(changes, "images") == [["images", "1", "-", "-", *gains, *3 * "-", "1.00"]]
    wide = ["-0.250", "-0.250", "+0.300", "+0.300"]
    assert words_of(changes, "500")[0] == ["500-500-2000", "1", "-", "-", *wide, *3 * "-", "1.50"]


def test_costs_are_compared_on_the_same_device_only(quality):
    twin = quality.SAME_LAYERS
    other = {"device": "cpu, faster"}
    keep(
        quality,
        [
            row(quality, "usps", twin, 0, cpu_seconds=40.0),
            row(quality, "usps", twin, 1, seconds=4.0, cpu_seconds=8.0, **other),
            row(quality, "usps", "DEC", 0, cpu_seconds=20.0),
            row(quality, "usps", "DEC", 1, cpu_seconds=1.0, **other),
            row(quality, "usps", "IDEC", 0, seconds=6.0, cpu_seconds=12.0, **other),
            row(quality, "usps", "DCN", 0, cpu_seconds=20.0, device="cpu, slower"),
        ],
    )
    table, _ = quality.write_table().split("Mean rank")
    costs = {words[0]: words[-3:] for words in words_of(table, ("DEC", "IDEC", "DCN"))}
    # The plain device first, else another, where the unit has a run on it.
    assert costs == {
        "DEC": ["10", "20", "0.50"],
        "IDEC": ["6", "12", "1.50"],
        "DCN": ["10", "20", "-"],
    }


def test_rows_name_a_library_loaded_before_all_others(quality, monkeypatch):
    monkeypatch.setattr(quality.torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert quality.device_name() == "cpu"
    monkeypatch.setenv("LD_PRELOAD", "/some/folder/mkl_avx512_on_amd.so")
    assert quality.device_name() == "cpu, mkl_avx512_on_amd"


def test_interrupted_run_goes_on_where_it_was(quality):
    asked = []

    def run_one(name, method, seed):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append((name, method, seed))
        return row(quality, name, method, seed)

    runs = list(quality.wanted(["usps", "pendigits"], [OURS, "KMeans"], 2))
    assert len(runs) == len(set(runs)) == 8
    assert [seed for *_, seed in runs] == [0] * 4 + [1] * 4
    with pytest.raises(KeyboardInterrupt):
        quality.run_missing(runs, run_one)
    assert asked == runs[:3]
    assert len(quality.read_rows()) == 3
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        quality.run_missing(runs, run_one)
    assert asked == runs[3:6]
    asked.clear()
    quality.run_missing(runs, run_one)
    assert asked == runs[6:]
    quality.run_missing(runs, run_one)
    assert asked == runs[6:]
    assert len(quality.read_rows()) == len(runs)


def test_budget_leaves_out_what_would_not_end_in_time(quality):
    asked = []

    def run_one(name, method, seed):
        asked.append((name, method, seed))
        return row(quality, name, method, seed)

    keep(quality, [row(quality, "usps", OURS, 0, seconds=1000.0)])
    runs = list(quality.wanted(["usps"], [OURS, "KMeans"], 2))
    quality.run_missing(runs, run_one, seconds=100.0)
    assert asked == [("usps", "KMeans", 0), ("usps", "KMeans", 1)]
    quality.run_missing(runs, run_one, seconds=-1.0)
    assert len(asked) == 2


def test_failed_run_is_run_again_on_request_only(quality):
    asked = []

    def run_one(name, method, seed):
        asked.append((name, method, seed))
        return row(quality, name, method, seed)

    keep(quality, [row(quality, "usps", "DEC", 0, error="RuntimeError: no")])
    quality.run_missing([("usps", "DEC", 0)], run_one)
    assert not asked
    quality.run_missing([("usps", "DEC", 0)], run_one, retry=True)
    assert len(asked) == 1
    assert ["error" in row for row in quality.read_rows()] == [False]


def test_row_belongs_to_its_settings(quality, monkeypatch):
    rows = [row(quality, "usps", OURS), row(quality, "usps", "AE-CM+pre")]
    other = row(quality, "usps", OURS, 1)
    other["settings"] = other["settings"] | {"beta": 7.0}
    keep(quality, [*rows, other, row(quality, "usps", OURS) | {"method": "no longer"}])
    assert quality.read_rows() == rows
    monkeypatch.setattr(quality, "ENGINE", quality.ENGINE + 1)
    assert quality.read_rows() == rows[1:]


def test_settings_say_all_and_survive_json(quality):
    for name in (*quality.DATA, *quality.WHOLE):
        for method in quality.METHODS:
            settings = quality.settings_of(name, method)
            assert json.loads(json.dumps(settings)) == settings
    ours = quality.settings_of("usps", OURS)
    assert ours == quality.settings_of("mnist", OURS)
    # Texts start as rows without partners do, by an engine of its own number.
    assert ours | {"engine": quality.ALONE_ENGINE} == quality.settings_of("20news", OURS)
    left_out = set(DeepAEClustering().get_params()) - set(ours)
    assert left_out == set(quality.NOT_SETTINGS)


def test_peers_get_at_least_our_epochs_and_sizes(quality):
    default = DeepAEClustering()
    # Theirs are none of the settings: they are ClustPy's own.
    for layers in (_deep_start.LAYERS, _deep_start.LEAN_LAYERS):
        assert np.all(np.array(layers) <= quality.HIDDEN)
    same = DeepAEClustering(**quality.OUR_SETTINGS[quality.SAME_LAYERS])
    assert same.hidden_layer_sizes == quality.HIDDEN
    taken = [
        sum(row["epochs"].values())
        for row in map(json.loads, COMMITTED.read_text().splitlines())
        if row["method"] == OURS
    ]
    assert len(taken) >= 5
    for settings in quality.PEERS.values():
        epochs = [settings[key] for key in quality.PEER_EPOCHS if key in settings]
        assert epochs[0] >= default.pretrain_iter
        assert sum(epochs) >= max(taken)
        assert settings["narrowest"] >= 10


def test_published_weights_in_our_units(quality):
    X, _ = blobs()
    expected = {"mnist": 0.46, "fashion_mnist": 0.07, "usps": 0.04, "pendigits": 0.15}
    for name, strength in expected.items():
        params = quality.published_params(quality.settings_of(name, "AE-CM+pre"), X)
        assert params["alpha"] == pytest.approx(strength, abs=0.005)
    assert params["beta"] == pytest.approx(0.5 * X.var(axis=0).sum())
    assert params["lam"] == 1 / 80
    assert params["epsilon"] == pytest.approx(1e-3 / 80)
    assert (params["max_iter"], params["pretrain_iter"]) == (1000, 100)
    assert params["n_iter_no_change"] > 1100


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("method", "expected"), [(OURS, 3.0), ("AE-CM+rand", 1.0)])
def test_published_runs_have_one_learning_rate(quality, monkeypatch, method, expected):
    seen = []
    fit = DeepAEClustering.fit

    def fit_and_note(self, X):
        seen.append(_modules.MODULE_RATE)
        return fit(self, X)

    monkeypatch.setattr(DeepAEClustering, "fit", fit_and_note)
    settings = quality.trial(quality.settings_of("usps", method))
    quality.run_deep(settings, blobs(dtype=np.float32)[0], 3, None, 0)
    assert seen == [expected]
    assert _modules.MODULE_RATE == 3.0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_changes_of_the_engine_end_with_their_fit(quality, monkeypatch):
    X = load_digits().data[:1000].astype(np.float32) / 16
    # So few rows are not cut in two ways otherwise.
    monkeypatch.setattr("skaecm._cuts.ROWS_PER_CLUSTER", 50)

    def fit(method, n_neighbors="auto"):
        small = {"hidden_layer_sizes": (16,), "pretrain_iter": 30, "max_iter": 2}
        model = DeepAEClustering(10, n_neighbors=n_neighbors, random_state=0, **small)
        change = quality.settings_of("usps", method).get("change")
        return quality.CHANGES.get(change, DeepAEClustering.fit)(model, X)

    def is_changed(method, n_neighbors):
        changed = fit(method, n_neighbors)
        assert changed.k == 10
        default = defaults[n_neighbors].embedding_centers_
        return not np.array_equal(changed.embedding_centers_, default)

    # Some parts are those of fits without partners alone.
    defaults = {n_neighbors: fit(OURS, n_neighbors) for n_neighbors in ("auto", None)}
    for method in quality.CHANGED:
        assert is_changed(method, "auto") or is_changed(method, None), method
    assert not is_changed(OURS, "auto")
    # Moves go on from one fit to the next.
    merged = fit(f"{OURS}, 2k merged at the end")
    assert quality.count_epochs(merged)["training"] == 4


def test_draw_is_fixed_and_stratified(quality, monkeypatch):
    y = np.repeat([0, 1, 2], [500, 300, 200])
    data = Bunch(data=np.arange(1000.0)[:, None], target=y, image_shape=None)
    monkeypatch.setattr(quality.datasets, "load", lambda name: data)
    monkeypatch.setattr(quality, "DRAW", 100)
    X, drawn, _ = quality.load("mnist")
    np.testing.assert_array_equal(np.bincount(drawn), [50, 30, 20])
    np.testing.assert_array_equal(X, quality.load("mnist")[0])
    assert len(np.unique(X)) == 100
    assert len(quality.load("mnist_70000")[0]) == len(quality.load("usps")[0]) == 1000


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", ["KMeans", "GaussianMixture, tied", OURS, "AE-CM+rand"])
def test_labels_reach_no_fit(quality, monkeypatch, method):
    X, y = blobs(dtype=np.float32)
    found = []
    monkeypatch.setattr(quality, "score", lambda y, labels: found.append(labels) or {})
    for target in (y, np.random.default_rng(0).permutation(y)):
        monkeypatch.setattr(quality, "load", lambda name, limit, y=target: (X, y, None))
        given = quality.run("usps", method, 0, peers=None, limit=len(X))
        assert "error" not in given
        assert given["k"] == 3
    np.testing.assert_array_equal(*found)
