"""`avdetect serve`: opens the port, runs the server until it is told to end, and ends it in good order."""

import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

import uvicorn

from avdetect.batch.options import scoring, threads_of
from avdetect.errors import ConfigError
from avdetect.jobs.process import try_task
from avdetect.media import ffmpeg_path
from avdetect.serve.app import build_app
from avdetect.serve.security import Impatient
from avdetect.serve.service import Service
from avdetect.serve.settings import ServeSettings
from avdetect.serve.worker import Score, score_upload

_MOST_CONNECTIONS = 800
_MOST_FILES = 4096  # a connection may need two
_GRACE_SECONDS = 3  # for answers that are being sent when the server ends


def serve(settings: ServeSettings, say: Callable[[str], None], score: Score = score_upload) -> None:
    """Serve until SIGINT (KeyboardInterrupt) or SIGTERM. say: told the address, and what should be known. Raises
    ConfigError, ModelError, ToolError, ServerError."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES if hard < 0 else min(_MOST_FILES, hard), hard))
    ffmpeg_path()  # without it every job would fail
    if score is score_upload:  # in a process of its own the networks are loaded once: what is wrong is said now
        try_task(partial(scoring, partial(settings.options.scorer, threads_of(settings.workers))))
    listener = listen(settings)
    # While it runs, uvicorn ends on these signals by itself, and sends them to us once more when that is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    with listener, Service(settings, score) as service:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"avdetect: listening on http://{host}:{listener.getsockname()[1]} (Ctrl-C ends it)")
        if settings.token is None:
            say("avdetect: whoever has an account on this machine can use it; --token-file asks for a token")
        try:
            http_server(service).run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the workers are ended in good order, whatever comes


def http_server(service: Service) -> uvicorn.Server:
    """What speaks HTTP for `service`, not running yet."""
    app = build_app(service, lambda: server.should_exit)
    config = uvicorn.Config(
        app,
        http=Impatient,
        log_config=None,
        log_level="error",  # what anybody can cause must not fill a disk
        proxy_headers=False,  # `Guard` reads them
        access_log=False,  # names of jobs are secrets
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    return server


def listen(settings: ServeSettings) -> socket.socket:
    """The open port. Raises ConfigError."""
    where = settings.host, settings.port
    try:
        family, *_, address = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        listener = socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=both)
        # What it accepts inherits this. asyncio sets it only where the socket names its protocol, which this one does
        # not; without it, the second half of each answer waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; name another --host or --port"
        ) from error
