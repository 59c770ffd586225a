"""Connections that ask nothing, or do not read, are ended: else a few hundred keep others out, or fill the memory."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

from avdetect.serve.settings import is_loopback

HEAD_SECONDS = 10.0  # for a request's line and headers, and for the rest of a body that was answered already
READ_SECONDS = 30.0  # for a peer to take what has been written to it, 64 KiB at most
MOST_OF_A_PEER = 64  # connections; loopback may have all, since a proxy stands there (which has limits of its own)
_MOST_AHEAD = 16 * 1024  # bytes of later requests


class Impatient(H11Protocol):
    """uvicorn's protocol, which by itself waits for ever for a request and for its answer to be read, and buffers
    whatever is sent before an answer is complete."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # `pause_writing` tells of every byte that is not taken
        peer = self.client[0] if self.client else ""
        theirs = sum((getattr(other, "client", None) or ("",))[0] == peer for other in self.connections)
        if theirs > MOST_OF_A_PEER and not is_loopback(peer):
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._answers() and not self.cycle.more_body:
            self.cycle.keep_alive = False  # it sends the next request already: dropped, and the connection ends
            return
        super().data_received(data)
        if self._answers() and not self.cycle.more_body and (ahead := self.conn.trailing_data[0]):
            self.cycle.keep_alive = False
            if len(ahead) > _MOST_AHEAD:
                self.transport.abort()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._deadline)
        _cancel(self._unread)
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the clock where a request is awaited; it runs on until there is one, whatever trickles in."""
        if self._answers():
            _cancel(self._deadline)
            self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _give_up(self) -> None:
        self._deadline = None
        if not self._answers():
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
