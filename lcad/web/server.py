"""Serving the page: on this machine only unless asked otherwise, and nothing but the page and its own files."""

import os
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lcad.web.studio import Studio

if TYPE_CHECKING:  # imported when the page is built
    from gradio import Blocks
    from starlette.types import ASGIApp, Receive, Scope, Send

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the page is served.

    Attributes:
        auth: (name, password) pairs; empty: everyone who reaches it may use it.
        share: also through Gradio's tunnel, at a public address.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: tuple[tuple[str, str], ...] = ()
    share: bool = False

    @property
    def is_local(self) -> bool:
        return self.host in LOCAL and not self.share


class Gate:
    """ASGI middleware: no addresses that Gradio would fetch, and on this machine only requests meant for it.

    A page of somebody else's in the visitor's browser could reach a local server under a name of its own (DNS
    rebinding); the Host header gives that away.
    """

    def __init__(self, app: "ASGIApp", hosts: Iterable[str] = ()):
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] in ("http", "websocket") and not self._allowed(scope):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not allowed"})
            return
        await self.app(scope, receive, send)

    def _allowed(self, scope: "Scope") -> bool:
        path = scope["path"].lower()
        if "/proxy=" in path or "/file=http" in path:
            return False
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return not self.hosts or name.strip("[]") in self.hosts


def serve(studio: Studio, address: Address, examples: Path | None = None, block: bool = True) -> "Blocks | None":
    """Serve the page until it is interrupted -> Gradio's page, where `block` is False.

    Raises:
        OSError: no free port. CheckpointError: the model cannot be loaded, which is known when the page is up already.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="uploads_", dir=studio.folder)  # goes with the studio
    import gradio as gr
    from starlette.middleware import Middleware

    from lcad.web.markup import CSS
    from lcad.web.page import build_page

    page = build_page(studio, examples).queue(max_size=studio.limits.waiting, default_concurrency_limit=4)
    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")  # nothing is fetched from elsewhere
    theme = gr.themes.Soft(primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=("monospace",))
    strong = ("button_primary_background_fill", "checkbox_label_background_fill_selected")  # behind white text
    hovered = "button_primary_background_fill_hover"
    theme.set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")
    theme.set(**{name + mode: "*primary_600" for name in strong for mode in ("", "_dark")})
    theme.set(**{hovered + mode: "*primary_700" for mode in ("", "_dark")})
    page.launch(
        server_name=address.host,
        server_port=address.port,
        auth=list(address.auth) or None,
        share=address.share,
        max_file_size=studio.limits.megabytes * 1_000_000,
        theme=theme,
        css=CSS,
        ssr_mode=False,
        footer_links=[],
        show_error=False,
        quiet=True,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [Middleware(Gate, hosts=LOCAL if address.is_local else ())]},
    )
    problems: list[Exception] = []
    ended = threading.Event()
    threading.Thread(target=_warm_up, args=(studio, problems, ended), daemon=True).start()
    print(f"L-CAD is at {page.local_url}" + (f" and {page.share_url}" if address.share else ""), flush=True)
    if not block:
        return page
    try:
        ended.wait()
    finally:
        page.close()
    if problems:
        raise problems[0]
    return None


def _warm_up(studio: Studio, problems: list[Exception], ended: threading.Event) -> None:
    from ldm.checkpoint import CheckpointError

    try:
        studio.warm_up()
    except CheckpointError as error:
        problems.append(error)
        ended.set()  # a page without a model is of no use
    except Exception as error:  # the first visitor is told, in the page
        print(f"error: {' '.join(str(error).split())}", flush=True)
