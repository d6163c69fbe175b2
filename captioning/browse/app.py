"""The caption browser's web application, and the server that `holism browse` runs.

Pages are rendered on the server with everything escaped, and no page loads anything from elsewhere: captions and
alt texts are strangers' words.
"""

from __future__ import annotations

import errno
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import uvicorn
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from captioning.browse.catalog import Catalog
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
from captioning.curate.reasons import MEANING
from pipeline.errors import ConfigError, HolismError
from pipeline.shards import ShardReader
from pipeline.workspace import Workspace

HERE = Path(__file__).parent
CONTENT_TYPES = {
    **{name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")},
    "MPO": "image/jpeg",
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Browser:
    """The pages over one workspace."""

    def __init__(self, workspace: Workspace, extra_routes: Sequence[BaseRoute] = ()) -> None:
        self.catalog = Catalog(workspace)
        self.templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"number": _number, "share": _share, "plain": _plain, "mark": _mark}
        self.templates.globals |= {"workspace": str(workspace.root), "meaning": MEANING, "extra": _links(extra_routes)}

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
        """The stored bytes of one image, found by its name in the tables; no path comes from the address."""
        snapshot, (shard, key) = self.catalog.current(), _place(request)
        image = locate(snapshot, shard, key)
        if image is None or image["status"] != "ok":
            raise HTTPException(404, f"There is no picture of {key!r} in shard {shard!r} of this workspace.")
        # A reader of its own: files are closed by position, which threads must not share.
        data = ShardReader(snapshot.shards).read(shard, image["offset"], image["size"])
        forever = request.query_params.get("v") == image["image_id"][:12]
        caching = {"Cache-Control": "private, max-age=31536000, immutable" if forever else "no-cache"}
        media_type = CONTENT_TYPES.get((image["format"] or "").upper(), "application/octet-stream")
        return Response(data, media_type=media_type, headers=SECURITY | caching)

    def style(self, _: Request) -> Response:
        """The style sheet."""
        return FileResponse(HERE / "style.css", media_type="text/css", headers={"Cache-Control": "no-cache"})

    def failure(self, _: Request, error: Exception) -> Response:
        """A page that says in one sentence what is wrong."""
        status = error.status_code if isinstance(error, HTTPException) else 503
        message = error.detail if isinstance(error, HTTPException) else str(error)
        return self._page("error.html", status, message=message, snapshot=None, filters=Filters())

    def _page(self, template: str, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self.templates.get_template(template).render(values), status, headers=SECURITY)


def create_app(workspace: Workspace, extra_routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The application over a workspace. Named extra routes without parameters are linked on every page."""
    browser = Browser(workspace, extra_routes)
    routes: list[BaseRoute] = [
        Route("/", browser.overview),
        Route("/images", browser.images),
        Route("/images/{shard}/{key:path}", browser.image),
        Route("/image/{shard}/{key:path}", browser.picture),
        Route("/style.css", browser.style),
        *extra_routes,
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: browser.failure, HolismError: browser.failure})
    app.state.catalog = browser.catalog
    return app


def serve(
    workspace: Workspace, host: str = "127.0.0.1", port: int = 8808, extra_routes: Sequence[BaseRoute] = ()
) -> None:
    """Serve a workspace until interrupted. What is wrong with it, or with the address, is said before."""
    app = create_app(workspace, extra_routes)
    listener = _listen(host, port)
    with listener:
        print(f"reading the tables of {workspace.root} (about 10 s per million captions)", file=sys.stderr, flush=True)
        snapshot = app.state.catalog.current()
        counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in ("images", "captions"))
        figures = snapshot.row(f"SELECT {counts}")
        address = f"http://{host if ':' not in host else f'[{host}]'}:{listener.getsockname()[1]}"
        print(
            f"{workspace.root}: {figures['images']:,} images, {figures['captions']:,} captions, "
            f"loaded in {snapshot.seconds:.1f} s\nbrowse {address} (Ctrl+C stops)",
            flush=True,
        )
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the port first, so that a port in use is one sentence and not a traceback of the server."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use by another program; stop that one, or choose another port, "
                f"for example --port {port + 1}"
            ) from error
        raise ConfigError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener


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


def _mark(text: str | None, wanted: str) -> Markup:
    """Escape a text and mark what was searched for."""
    if not wanted:
        return escape(text or "")
    pieces = re.split(f"({re.escape(wanted)})", text or "", flags=re.IGNORECASE)
    return Markup("").join(
        Markup("<mark>{}</mark>").format(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces)
    )
