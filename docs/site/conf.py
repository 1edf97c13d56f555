# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a site of docs/ (`make site`): Sphinx reads its pages as they are."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from passtpy import __version__ as version  # noqa: E402

project = "passtpy"
release = version
copyright = "the passtpy maintainers, GPL-2.0-or-later"  # noqa: A001

extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = f"passtpy {version}"
html_show_sphinx = False
html_copy_source = False
# Headings are anchors, by the names that forges give them
myst_heading_anchors = 4
myst_links_external_new_tab = False
highlight_language = "none"
smartquotes = False  # would make one dash of the two of an option
