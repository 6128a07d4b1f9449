"""Configuration of the site. Its source folder is the root of the repository, so links work on the forge as well.

``make docs`` builds docs/_build/html.
"""

import importlib
import logging
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxTranslator

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "macattr"
author = "macattr contributors"
project_copyright = author
language = "en-GB"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/**/*.md",
    "notebooks/*.ipynb",
    "notebooks/masked_swin/README.md",
    "benchmarks/results/*.md",
    "results/evaluation/*.md",
    "ram_models/weights/README.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "docs/_build", "runs", "demo"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks hold their outputs; `make test` executes them
nb_merge_streams = True

autosummary_generate = False
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "special-members": "__call__",
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Source"]

nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!macattr|ram_models).*"),  # no inventories are downloaded, so names of other projects stay text
    (r"py:class", r"ram_models\.experiments\.study\.parallel\.(Task|Result)"),  # type variables
]

html_theme = "furo"
html_title = "macattr"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]  # the site's root leads to docs/index.html
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"  # prompts and outputs are not copied; comments are


TOP_LEVEL = {"class", "data", "exception", "function"}
"""Types of the objects that a package may offer; methods and attributes are not among them."""


def public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Link ``macattr.rank_layers``, as users import it, to the module that defines and explains it."""
    package, _, name = node.get("reftarget", "").rpartition(".")
    domain = env.domains.python_domain
    matches = [
        full
        for full, entry in domain.objects.items()
        if full.startswith(f"{package}.") and full.endswith(f".{name}") and entry.objtype in TOP_LEVEL
    ]
    if package not in ("macattr", "ram_models", "ram_models.degradations") or len(matches) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", matches[0], node, content)


def internal_class(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Leave a class or type variable outside of ``__all__`` as text: it appears in signatures only."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if node.get("reftype") != "class" or not module.startswith(("macattr.", "ram_models.")):
        return None
    try:
        public = getattr(importlib.import_module(module), "__all__", [name])
    except ModuleNotFoundError:
        return None
    return None if name in public else content


def visit_math(self: SphinxTranslator, node: nodes.math | nodes.math_block) -> None:
    """Write formulas as MathML, which browsers show without a script."""
    block = isinstance(node, nodes.math_block)
    mathml = tex2mathml(" ".join(node.astext().split()), as_block=block)
    self.body.append(f'<div class="formula">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def is_needed(record: logging.LogRecord) -> bool:
    """False for the warning of an empty glob: notebooks and generated pages may be absent."""
    return getattr(record, "subtype", None) != "empty_glob"


def setup(app: Sphinx) -> None:
    """Add the short links, the formulas and the filter of warnings to Sphinx."""
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(is_needed)
    app.connect("missing-reference", public_name)
    app.connect("missing-reference", internal_class)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
