"""``/sessions``: what was recorded, one page a session, and reports and exports of it.

Looking is for everybody who is let in; having something made is for operators. Requests that change
something come from a page of this console, as everywhere, and are JSON.
"""

import html
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from semagent.console.access import Level, level_of, why_not
from semagent.console.answers import as_json, in_words
from semagent.console.library import Library, Listed, regular
from semagent.console.packets import Coding, figures_of, pack_recorded
from semagent.console.shell import BROWSING, LINKS, SESSIONS, body, page
from semagent.console.workshop import BusyError, Work, Workshop, product
from semagent.errors import InputFileError

_HERE = SESSIONS[1]
_MAP = "focus-map.png"
_REPORT_HEADERS = {
    # A report has its style inside and no scripts; whatever else the file holds stays inert.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "sandbox; frame-ancestors 'none'",
}

Answer = Callable[[Request, Path], Response]


class SessionPages:
    """The routes of the session browser. What reads the disk runs on threads.

    Args:
        library: what is shown.
        live: a run goes on, which can be seen and stopped.
    """

    def __init__(self, library: Library, *, live: bool) -> None:
        self._library = library
        self._live = live
        self._workshop = Workshop()
        self._body = body("session.html")

    def routes(self) -> Sequence[BaseRoute]:
        """What they serve."""
        one = f"{_HERE}/{{name}}"
        return [
            Route(_HERE, self._list),
            Route(one, self._of_session(self._show)),
            Route(f"{one}/record", self._of_session(self._record)),
            Route(f"{one}/record/{{sequence:int}}", self._of_session(self._record)),
            Route(f"{one}/curve/{{begin:float}}/{{end:float}}", self._of_session(self._curve)),
            Route(f"{one}/steps/{{first:int}}", self._of_session(self._steps)),
            Route(f"{one}/happenings/{{kind}}", self._of_session(self._happenings)),
            Route(f"{one}/happenings/{{kind}}/{{before:int}}", self._of_session(self._happenings)),
            Route(f"{one}/frames/{{sequence:int}}", self._of_session(self._frame)),
            Route(f"{one}/restored/{{sequence:int}}", self._of_session(self._restored)),
            Route(f"{one}/map.png", self._of_session(self._map)),
            Route(f"{one}/report.html", self._of_session(self._report)),
            Route(f"{one}/report.png", self._of_session(self._report_picture)),
            Route(f"{one}/work", self._of_session(self._state)),
            Route(f"{one}/work/{{work}}", self._of_session(self._make), methods=["POST"]),
        ]

    def close(self) -> None:
        """End what is being made. May be called twice."""
        self._workshop.close()
        self._library.close()

    def _list(self, request: Request) -> Response:
        return self._whole(request, "Sessions", _table(self._library))

    def _whole(self, request: Request, title: str, inside: str, *scripts: str) -> Response:
        """A page; whoever may stop the run can do so from there."""
        if self._live and level_of(request.scope) is Level.OPERATOR:
            scripts = (*scripts, "stop.js")
        links = LINKS if self._live else BROWSING
        return HTMLResponse(page(title, inside, here=_HERE, scripts=scripts, links=links))

    def _of_session(self, answer: Answer) -> Callable[[Request], Response]:
        def found(request: Request) -> Response:
            folder = self._library.find(request.path_params["name"])
            if folder is None:
                return in_words("There is no such session here.", 404)
            try:
                return answer(request, folder)
            except InputFileError as error:
                return in_words(str(error), 422)

        return found

    def _show(self, request: Request, _folder: Path) -> Response:
        return self._whole(request, "Session", self._body, "session.js")

    def _record(self, request: Request, folder: Path) -> Response:
        sequence = request.path_params.get("sequence")
        return as_json(
            {
                "level": level_of(request.scope),
                "map": regular(folder / _MAP) is not None,
                "record": self._library.chronicle(folder).outline(sequence),
                "grows": self._library.grows(folder),
            }
        )

    def _curve(self, request: Request, folder: Path) -> Response:
        begin_s, end_s = request.path_params["begin"], request.path_params["end"]
        return as_json(self._library.chronicle(folder).curve(begin_s, end_s))

    def _steps(self, request: Request, folder: Path) -> Response:
        return as_json(self._library.chronicle(folder).steps(request.path_params["first"]))

    def _happenings(self, request: Request, folder: Path) -> Response:
        kind, before = request.path_params["kind"], request.path_params.get("before")
        return as_json(self._library.chronicle(folder).happenings(kind, before))

    def _frame(self, request: Request, folder: Path) -> Response:
        frame = self._library.chronicle(folder).frame(request.path_params["sequence"])
        return _packet(pack_recorded(frame.header, frame.pixels, "raw", _coding(request)))

    def _restored(self, request: Request, folder: Path) -> Response:
        sequence = request.path_params["sequence"]
        made = self._library.chronicle(folder).restored(sequence)
        if made is None:
            return in_words(f"Frame {sequence} was not restored.", 404)
        pixels, figures = made
        more = figures_of(figures)
        return _packet(pack_recorded(figures.header, pixels, "restored", _coding(request), **more))

    def _map(self, _request: Request, folder: Path) -> Response:
        return _file(folder / _MAP, "image/png")

    def _report(self, _request: Request, folder: Path) -> Response:
        return _file(product(folder, Work.REPORT), "text/html", _REPORT_HEADERS)

    def _report_picture(self, _request: Request, folder: Path) -> Response:
        return _file(product(folder, Work.REPORT).with_suffix(".png"), "image/png")

    def _state(self, _request: Request, folder: Path) -> Response:
        return as_json(
            {
                "jobs": self._workshop.jobs(folder),
                "report": regular(product(folder, Work.REPORT)) is not None,
            }
        )

    def _make(self, request: Request, folder: Path) -> Response:
        if (reason := why_not(request)) is not None:
            return in_words(*reason)
        if request.path_params["work"] not in set(Work):
            return in_words(f"what can be made: {', '.join(Work)}", 404)
        try:
            return as_json(self._workshop.start(folder, Work(request.path_params["work"])), 202)
        except BusyError as error:
            return in_words(str(error), 409)


def _table(library: Library) -> str:
    if library.root is None:
        return (
            '<main class="page sessions"><h1>Sessions</h1><p>This run is not recorded: '
            "<code>--record DIR</code> would. <code>semagent browse FOLDER</code> shows what was "
            "recorded before.</p></main>"
        )
    rows = "".join(_row(one) for one in library.listing())
    empty = "" if rows else "<p>No session lies in this folder.</p>"
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Session", "Started", "Lasted", "Instrument", "Engine", "Frames", "State")
    )
    return (
        f'<main class="page sessions"><h1>Sessions</h1><p class="sub">{_escape(library.root)}</p>'
        f'<div class="card"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f"{empty}</div></main>"
    )


def _row(one: Listed) -> str:
    link = f'<a href="{_HERE}/{quote(one.name, safe="")}">{_escape(one.name)}</a>'
    manifest = one.manifest
    if manifest is None:
        return (
            f'<tr><td>{link}</td><td colspan="4"></td><td>{one.frames}</td>'
            f'<td class="bad">{_escape(one.trouble)}</td></tr>'
        )
    simulated = " (simulated)" if manifest.capabilities.simulated else ""
    instrument = manifest.configuration.get("instrument", manifest.capabilities.microscope)
    state = f'<td class="warn">{_escape(one.trouble)}</td>' if one.trouble else "<td>complete</td>"
    cells = (
        link,
        _moment(manifest.started_wall_ns),
        _lasted(manifest.lasted_s),
        _escape(f"{instrument}{simulated}"),
        _escape(manifest.engine.name),
        str(one.frames),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + state + "</tr>"


def _moment(wall_ns: int) -> str:
    """Day and time of this place; a dash for what a damaged manifest says and no calendar has."""
    try:
        return f"{datetime.fromtimestamp(wall_ns / 1e9).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):
        return "–"


def _lasted(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _coding(request: Request) -> Coding:
    return "compact" if request.query_params.get("coding") == "compact" else "lossless"


def _file(path: Path, kind: str, headers: dict[str, str] | None = None) -> Response:
    if regular(path) is None:
        return in_words("There is no such file.", 404)
    return FileResponse(path, media_type=kind, headers=headers)


def _packet(body: bytes) -> Response:
    return Response(body, media_type="application/octet-stream")


def _escape(text: object) -> str:
    return html.escape(str(text))
