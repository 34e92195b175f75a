"""Who is on the page: one session for each, closed when the page is left, or when too many others have come since."""

import ctypes
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from lcad.web.studio import Studio

if TYPE_CHECKING:
    from lcad.web.session import PhotoSession

MOST = 16  # sessions with a photo in memory; the one that was used longest ago makes room


class Visitors:
    """Sessions by the visitors' keys; photos of twice the pixels that one may have are kept in memory at most."""

    def __init__(self, studio: Studio, most: int = MOST):
        self.studio, self._most, self._most_pixels = studio, most, 2e6 * studio.limits.megapixels
        self._sessions: OrderedDict[str, PhotoSession] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, key: str) -> "PhotoSession":
        """A visitor's session, a new one if there is none."""
        from lcad.web.session import PhotoSession

        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = PhotoSession(self.studio)
            self._sessions.move_to_end(key)
            mine, left = self._sessions[key], []
            while len(self._sessions) > 1 and self._crowded():
                left.append(self._sessions.popitem(last=False)[1])
        _close(left)
        return mine

    def leave(self, key: str) -> None:
        """Forget a visitor."""
        with self._lock:
            left = [self._sessions.pop(key)] if key in self._sessions else []
        _close(left)

    def _crowded(self) -> bool:
        photos = [session.photo for session in self._sessions.values()]
        pixels = sum(photo.values.shape[0] * photo.values.shape[1] for photo in photos if photo is not None)
        return len(photos) > self._most or pixels > self._most_pixels

    def __len__(self) -> int:
        return len(self._sessions)


def _close(sessions: "list[PhotoSession]") -> None:
    """Close and forget them, and give their memory back: glibc would keep much of it for itself."""
    if not sessions:
        return
    while sessions:
        sessions.pop().close()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
