"""The caption browser's web application.

Pages are rendered on the server with everything escaped, and no page loads anything from elsewhere: captions and
alt texts are not to be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from captioning.browse.catalog import Catalog
from captioning.browse.gate import Gate, Rules
from captioning.browse.queries import (
    PAGE_IMAGES,
    SORTS,
    STATUSES,
    Filters,
    choices,
    find_image,
    find_images,
    locate,
    overview,
)
from captioning.browse.results import Find
from captioning.curate.gadgets import meanings
from pipeline.errors import HolismError
from pipeline.shards import ShardReader
from pipeline.summary import counted
from pipeline.thumbnails import for_browser
from pipeline.workspace import Workspace

HERE = Path(__file__).parent
MAX_TEXT = 4000  # characters of one text on a page; longer than any honest caption


class Browser:
    """The pages over one workspace."""

    def __init__(self, workspace: Workspace, find: Find, extra_routes: Sequence[BaseRoute] = ()) -> None:
        self.catalog = Catalog(workspace, find)
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            finalize=_cut,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            "number": _number,
            "counted": counted,
            "share": _share,
            "plain": _plain,
            "mark": _mark,
        }
        self.templates.globals |= {
            "workspace": str(workspace.root),
            "meaning": meanings(),
            "extra": _links(extra_routes),
        }

    def overview(self, _: Request) -> Response:
        """Counts by perspective, reasons of rejection, lengths."""
        snapshot = self.catalog.current()
        return self._page("overview.html", snapshot=snapshot, filters=Filters(), **overview(snapshot))

    def images(self, request: Request) -> Response:
        """Pictures with their captions, filtered and sorted."""
        snapshot, filters = self.catalog.current(), Filters.of(request.query_params)
        total, images = find_images(snapshot, filters)
        pages = max(-(-total // PAGE_IMAGES), 1)
        forms: dict[str, Any] = {"choices": choices(snapshot), "sorts": SORTS, "statuses": STATUSES}
        return self._page(
            "images.html", snapshot=snapshot, filters=filters, total=total, images=images, pages=pages, **forms
        )

    def image(self, request: Request) -> Response:
        """Everything about one image."""
        snapshot, (shard, key) = self.catalog.current(), _place(request)
        image = find_image(snapshot, shard, key)
        if image is None:
            raise HTTPException(404, f"There is no image {key!r} in shard {shard!r} of this workspace.")
        return self._page("image.html", snapshot=snapshot, filters=Filters(), image=image)

    def picture(self, request: Request) -> Response:
        """One image, found by its name in the tables; no path comes from the address."""
        snapshot, (shard, key) = self.catalog.current(), _place(request)
        image = locate(snapshot, shard, key)
        if image is None or image["status"] != "ok":
            raise HTTPException(404, f"There is no picture of {key!r} in shard {shard!r} of this workspace.")
        # A reader of its own: files are closed by position, which threads must not share.
        data = ShardReader(snapshot.shards).read(shard, image["offset"], image["size"], image["image_id"])
        forever = request.query_params.get("v") == image["image_id"][:12]
        caching = {"Cache-Control": "private, max-age=31536000, immutable" if forever else "no-cache"}
        shown, media_type = for_browser(data)
        return Response(shown, media_type=media_type, headers=caching)

    def style(self, _: Request) -> Response:
        """The style sheet."""
        return FileResponse(HERE / "style.css", media_type="text/css", headers={"Cache-Control": "no-cache"})

    def failure(self, _: Request, error: Exception) -> Response:
        """A page that says in one sentence what is wrong."""
        status = error.status_code if isinstance(error, HTTPException) else 503
        message = error.detail if isinstance(error, HTTPException) else str(error)
        return self._page("error.html", status, message=message, snapshot=None, filters=Filters())

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(values), status)


def create_app(
    workspace: Workspace, find: Find, rules: Rules | None = None, extra_routes: Sequence[BaseRoute] = ()
) -> Starlette:
    """The application over a workspace; `find` says which results it shows, `rules` who is answered.

    Named extra routes without parameters are linked on every page.
    """
    browser = Browser(workspace, find, extra_routes)
    routes: list[BaseRoute] = [
        Route("/", browser.overview),
        Route("/images", browser.images),
        Route("/images/{shard}/{key:path}", browser.image),
        Route("/image/{shard}/{key:path}", browser.picture),
        Route("/style.css", browser.style),
        *extra_routes,
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, rules=rules or Rules())],
        exception_handlers={HTTPException: browser.failure, HolismError: browser.failure},
    )
    app.state.catalog = browser.catalog
    return app


def _place(request: Request) -> tuple[str, str]:
    return request.path_params["shard"], request.path_params["key"]


def _links(routes: Sequence[BaseRoute]) -> list[tuple[str, str]]:
    return [(route.name, route.path) for route in routes if isinstance(route, Route) and "{" not in route.path]


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _share(part: float | None, whole: float | None) -> str:
    return f"{100 * (part or 0) / whole:.1f} %" if whole else "–"


def _plain(name: str | None) -> str:
    return (name or "–").replace("_", " ")


def _cut(value: Any) -> Any:
    """What a template prints, long texts cut: texts can be of any length, and pages stay small."""
    if not isinstance(value, str) or isinstance(value, Markup) or len(value) <= MAX_TEXT:
        return value
    return f"{value[:MAX_TEXT]}… (cut: {len(value):,} characters)"


def _mark(text: str | None, wanted: str) -> Markup:
    """Escape a text and mark what was searched for."""
    text = _cut(text or "")
    if not wanted:
        return escape(text)
    pieces = re.split(f"({re.escape(wanted)})", text, flags=re.IGNORECASE)
    return Markup("").join(
        Markup("<mark>{}</mark>").format(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces)
    )
