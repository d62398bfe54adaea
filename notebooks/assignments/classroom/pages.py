"""What of a student's markdown reaches a browser: text, mathematics and attached pictures, and nothing that acts.

nbgrader's pages for marking and for feedback show HTML as it was written, whatever nbconvert's `sanitize_html` says; on
JupyterHub a script in an answer would then run with the instructor's rights.
"""

import re
from html import escape

import bleach
import jinja2
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

TAGS = bleach.ALLOWED_TAGS | {f"h{level}" for level in range(1, 7)}
TAGS |= {"p", "br", "hr", "pre", "div", "span", "img", "details", "summary", "s", "del", "sub", "sup"}
TAGS |= {"table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd"}
PICTURE = re.compile(r"data:image/(png|jpeg|gif);base64,[A-Za-z0-9+/=\s]*")
LINK = re.compile(r"(https?:|mailto:|#)")
ACTS = re.compile(r"\\(href|mmlToken)")  # MathJax makes links of them, to scripts as well


@jinja2.pass_context
def markdown2html(context, source):
    """Stands in for nbconvert's filter of this name; what cannot be shown is shown as it was typed."""
    cell = context.get("cell") or {}
    renderer = IPythonRenderer(
        escape=False, attachments=cell.get("attachments", {}), exclude_anchor_links=True
    )
    try:
        html = MarkdownWithMath(renderer=renderer).render(ACTS.sub(r"\\text", source))
        return bleach.clean(html, TAGS, _harmless, protocols={"http", "https", "mailto", "data"})
    except (InvalidNotebook, RecursionError):  # an attachment is missing, or quotes are nested without end
        return f"<pre>{escape(source)}</pre>"


def _harmless(tag, name, value):
    if name in ("href", "src"):
        return bool(PICTURE.fullmatch(value) if tag == "img" else LINK.match(value))
    return name in ("alt", "class", "title", "colspan", "rowspan")
