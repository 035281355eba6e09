"""Sphinx extension: the executed notebook behind each page's download button, as any Jupyter shows it.

The theme offers it only where a launch service (Binder, Colab, ...) is configured; this book
names none, so that it depends on no outside address. And MyST-NB writes a notebook without
outputs when a page came from the cache: the outputs are merged in here. Solutions are left out (tools/course.py);
the files lie in one folder, so that links between them hold when several are downloaded.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from sphinx.application import Sphinx

from tools import course, notebooks


def offer_notebook(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Put the executed notebook of a page into the site and tell the theme's button of it."""
    site = Path(app.outdir)
    written = site.parent / "jupyter_execute" / f"{pagename}.ipynb"
    if not written.is_file():
        return
    notebook = nbformat.read(written, as_version=4)
    cache = get_cache(app.env.mystnb_config.execution_cache_path)
    # KeyError: a page that is never executed has no entry
    with suppress(KeyError):
        _, notebook = cache.merge_match_into_notebook(notebook)
    page = Path(f"{pagename}.md")
    target = site / "_sources" / notebooks.reference(page).name
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(course.convert(notebook, page, solutions=False), target)
    context["ipynb_source"] = target.name


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect ahead of the theme, which builds its buttons at priority 501."""
    app.connect("html-page-context", offer_notebook, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
