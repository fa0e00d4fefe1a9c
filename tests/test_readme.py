"""The example of README.rst runs as it stands, but for the size of its network."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.rst"
SMALL = "DeepAEClustering(hidden_layer_sizes=(16,), pretrain_iter=1, tol=1e3, n_iter_no_change=1, "


def test_the_example():
    block = re.search(r"code-block:: python\n\n((?:    .*\n|\n)+)", README.read_text())[1]
    code = "\n".join(line[4:] for line in block.splitlines())
    assert code.count("DeepAEClustering(") == 1
    scope = {}
    exec(code.replace("DeepAEClustering(", SMALL), scope)
    assert scope["labels"].shape == (1797,)
    assert scope["embedding"].shape == scope["responsibilities"].shape == (1797, 10)
