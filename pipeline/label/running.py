"""The labelling page bound to its port."""

from __future__ import annotations

from collections.abc import Callable

from ..context import Context
from ..serve.app import guarded
from ..serve.limits import Limits
from ..serve.metrics import Metrics
from ..serve.running import bound, check_access, run_server, server_of, token_of
from ..settings import LabelSettings
from .app import Desk, build_app
from .build import build_session
from .thumbs import Thumbs


def label(settings: LabelSettings, load: Callable[[], Context]) -> None:
    """Serve the labelling page of a data set until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : LabelSettings
        Address, token, corrections.
    load : callable
        Gives the context; called when the port is bound, so that a port in use is told first.

    Raises
    ------
    SettingsError
        An address that cannot be bound, or one open to others without a token.
    PipelineError
        The data set, the network or the file of corrections cannot be used.
    """
    token = token_of(settings.token)
    check_access(settings.host, token)
    one = bound(settings.host, settings.port)
    try:
        context = load()
        session, adder = build_session(context, settings)
    except BaseException:
        one.close()
        raise
    limits, metrics = Limits(), Metrics()
    thumbs = Thumbs(context.cache / session.name / "thumbs.sqlite")
    desk = Desk(session, adder, thumbs, limits, metrics)
    app = guarded(build_app(desk), metrics, host=settings.host, token=token)
    name = f"[{settings.host}]" if ":" in settings.host else settings.host
    context.say(f"http://{name}:{one.getsockname()[1]}/  corrections: {session.images.log.path}")
    run_server(server_of(app, limits), one)
