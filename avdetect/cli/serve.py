"""`avdetect serve`."""

from pathlib import Path
from typing import Annotated

from typer import Option

from avdetect.cli.console import say
from avdetect.cli.options import BundleOption, DeviceOption, FfmpegOption, LimitsOption
from avdetect.extras import importing

_STATE, _TOKEN = "avdetect/serve in $XDG_STATE_HOME", "$AVDETECT_TOKEN"


def serve(
    host: Annotated[str, Option(help="Address to listen on; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    data: Annotated[
        Path | None, Option(metavar="DIR", help="Where uploads wait and results are kept.", show_default=_STATE)
    ] = None,
    workers: Annotated[int, Option(metavar="N", min=1, help="Videos that are scored at a time, a process each.")] = 1,
    queue: Annotated[int, Option(metavar="N", min=1, help="Videos that may wait.")] = 100,
    max_upload_mb: Annotated[float, Option(metavar="MIB", min=0.001, help="Largest video that is taken.")] = 1024.0,
    keep_hours: Annotated[
        float, Option(min=0.001, help="Forget a result after so long; its video goes at once.")
    ] = 24.0,
    token_file: Annotated[
        Path | None, Option(metavar="FILE", help="Ask everybody for the token in it.", show_default=_TOKEN)
    ] = None,
    allowed_host: Annotated[
        list[str] | None, Option(metavar="NAME", help="Name under which it is reached; may be repeated.")
    ] = None,
    device: DeviceOption = "auto",
    bundle: BundleOption = None,
    ffmpeg: FfmpegOption = None,
    limits: LimitsOption = None,
) -> None:
    """A page to drop a video on, and a REST interface. Ctrl-C ends it; what waits is scored after the next start."""
    from avdetect.batch.options import ScoringOptions
    from avdetect.config import load_yaml

    with importing("serve", "avdetect serve"):
        from avdetect.serve import command
        from avdetect.serve.settings import ServerLimits, ServeSettings, default_data, read_token

    media_limits = load_yaml(ServerLimits, limits) if limits else ServerLimits()
    settings = ServeSettings(
        data=(data or default_data()).absolute(),
        host=host,
        port=port,
        token=read_token(token_file),
        allowed_hosts=tuple(allowed_host or ()),
        workers=workers,
        queue=queue,
        max_upload_bytes=round(max_upload_mb * 1024**2),
        keep_seconds=keep_hours * 3600,
        options=ScoringOptions(bundle.absolute() if bundle else None, device, limits=media_limits),
    )
    command.serve(settings, say)
