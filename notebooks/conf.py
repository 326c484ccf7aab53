"""How `make docs` builds the book: pages and tutorials, executed, and the reference."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "dynmech"
author = "The dynmech authors"
project_copyright = "the dynmech authors"
release = version = installed("dynmech")

extensions = ["myst_nb", "book.mathml", "book.reference"]
exclude_patterns = ["book", "**.ipynb_checkpoints"]
root_doc = "index"
nitpicky = True
highlight_language = "none"
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_output_stderr = "remove"
nb_merge_streams = True

html_theme = "pydata_sphinx_theme"
html_title = "dynmech"
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
html_static_path = ["book/static"]
html_css_files = ["book.css"]
html_sidebars = {"**": ["globaltoc.html"]}
html_theme_options = {
    "logo": {"text": "dynmech"},
    "navbar_center": [],
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
