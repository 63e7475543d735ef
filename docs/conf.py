"""The documentation as a site: ``python -m sphinx -W docs site``. Needs the extra ``docs``."""

from semagent import __version__

project = "semagent"
project_copyright = "the semagent contributors, MIT licence"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# Pages are written for GitHub too, which makes such anchors of headings.
myst_heading_anchors = 4
# A block without a language is shown as it is; some leave things out with an ellipsis.
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
# `Name` in a docstring is that object, where it is documented.
default_role = "py:obj"
add_module_names = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "semagent"
html_favicon = "../semagent/console/static/icon.svg"
html_copy_source = False
html_show_sphinx = False
