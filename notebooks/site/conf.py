"""Sphinx settings of the browsable course; notebooks/site/build.py lays out the folder that this file is used in."""

from pathlib import Path

project = "minitf"
author = "the minitf contributors"
copyright = "the minitf contributors, Apache-2.0"
language = "en"

extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the stored outputs are shown
nb_merge_streams = True
nb_ipywidgets_js = {}  # would be fetched from a CDN

html_theme = "sphinx_book_theme"
html_title = "minitf: TokenFormer from arrays"
html_theme_options = {
    "show_navbar_depth": 2,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "navigation_with_keys": True,
    "navbar_persistent": [],  # the sidebar has the search box
}
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_copy_source = True
html_show_sourcelink = False

# One file that needs no network, where npm could bring it; otherwise the theme's own link to a CDN.
if Path(__file__).with_name("_static").joinpath("mathjax.js").exists():
    mathjax_path = "mathjax.js"
