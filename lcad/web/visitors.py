"""Who is on the page: one session for each, closed when the page is left, or when too many others have come since."""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from lcad.web.studio import Studio

if TYPE_CHECKING:
    from lcad.web.session import PhotoSession

MOST = 16  # sessions with a photo in memory; the one that was used longest ago makes room


class Visitors:
    """Sessions by the visitors' keys."""

    def __init__(self, studio: Studio, most: int = MOST):
        self.studio, self._most = studio, most
        self._sessions: OrderedDict[str, PhotoSession] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, key: str) -> "PhotoSession":
        """A visitor's session, a new one if there is none."""
        from lcad.web.session import PhotoSession

        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = PhotoSession(self.studio)
            self._sessions.move_to_end(key)
            left = [self._sessions.popitem(last=False)[1] for _ in range(len(self._sessions) - self._most)]
        for session in left:
            session.close()
        return self._sessions[key]

    def leave(self, key: str) -> None:
        """Forget a visitor."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def __len__(self) -> int:
        return len(self._sessions)
