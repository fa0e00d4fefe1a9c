"""Configuration of the documentation."""

from skaecm import __version__

project = "skaecm"
author = "The skaecm developers"
copyright = "2026, the skaecm developers"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas need no network
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
autosummary_generate = True
default_role = "literal"

# Every reference inside these pages must resolve; other projects are named, not linked, so
# that a build needs no network. Types stand in the docstrings.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(joblib|matplotlib|numpy|pandas|scipy|sklearn|torch)\..*")]
autodoc_typehints = "none"

extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}

numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL01", "GL02", "GL03", "PR01", "PR02", "PR03", "PR04", "RT01"}
numpydoc_validation_exclude = {r"\.set_.*_request$", r"\.get_.*$", r"\.set_.*$", r"\.fit_.*$"}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "ignore_pattern": r"__init__\.py|twelve_tasks\.py|with_.*\.py",
    "within_subsection_order": "FileNameSortKey",
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,  # its table would load scripts from a network
}

html_theme = "pydata_sphinx_theme"
html_title = "skaecm"
html_show_sourcelink = False
html_sidebars = {"index": [], "results": []}  # wide tables
html_theme_options = {"navigation_with_keys": False}
