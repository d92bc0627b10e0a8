"""How Sphinx makes the pages of docs/; `make docs` runs it with the XML that Doxygen has made."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

project = "channel-layer"
release = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(encoding="utf-8"),
                    re.MULTILINE)[1]
version = release
author = "the authors of channel-layer"
project_copyright = author

extensions = ["breathe", "myst_parser", "c_reference"]
root_doc = "index"
# README.md is the first page of the folder on a forge; index.md includes it.
exclude_patterns = ["README.md", "site", "examples"]
nitpicky = True
# Types of the compiler's own headers.
nitpick_ignore = [("c:identifier", name)
                  for name in ("int32_t", "uint8_t", "uint32_t", "uint64_t", "size_t")]
primary_domain = "c"
highlight_language = "c"

breathe_projects = {project: os.environ["CHANNEL_LAYER_DOCS_XML"]}
breathe_default_project = project
breathe_domain_by_extension = {"h": "c"}

# As forges make them, so that a link with an anchor works in both.
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"channel-layer {release}"
html_static_path = ["static"]
html_css_files = ["channel_layer.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_last_updated_fmt = None
add_function_parentheses = False
# A parameter per line where a declaration is longer.
c_maximum_signature_line_length = 60
# Dashes alone: three dots and straight quotes are what they are.
smartquotes_action = "D"
pygments_style = "xcode"
pygments_dark_style = "github-dark"
