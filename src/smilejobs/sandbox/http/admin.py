"""The page of the sandbox: its jobs, as HTML and as JSON, and buttons that end a human review.

It shows ids, and the buttons change a job. So it answers only what the guard allows, on every server, and the buttons
work from this page only.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import datetime
from html import escape
from urllib.parse import parse_qs

from attrs import frozen
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from smilejobs.model.codes import JOB_TYPES, verdict_by_code
from smilejobs.model.jobs import JobRef
from smilejobs.sandbox.http.common import read, root_of
from smilejobs.sandbox.http.guard import Guarded
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.products import text_for
from smilejobs.sandbox.registry import Registry

_MAX_FORM_BYTES = 4096
_LABELS = ("Job", "User", "Number", "Product", "State", "Polls", "Review")
_OUTCOMES = {"approved": "Approve", "rejected": "Reject"}
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d8dce2, #3a4049); --soft: light-dark(#596273, #9aa4b5);
  --good: light-dark(#176b3a, #6fd598); --bad: light-dark(#a3262a, #f39a9c); --busy: light-dark(#8a5200, #f0b866); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0; }
p { color: var(--soft); margin: .25rem 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .5rem .75rem .5rem 0; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
td:nth-child(-n+2) { overflow-wrap: anywhere; }
td:nth-child(3), button { font-variant-numeric: tabular-nums; white-space: nowrap; }
.final { color: var(--good); } .rejected, .error, .refused { color: var(--bad); }
.waiting { color: var(--busy); }
form { display: inline-flex; gap: .5rem; }
button { border: 1px solid var(--line); border-radius: .4rem; cursor: pointer; font: inherit; min-height: 2.5rem;
  padding: .25rem .9rem; }
@media (max-width: 44rem) {
  thead { display: none; }
  tr { border-bottom: 1px solid var(--line); display: block; padding: .75rem 0; }
  td { border: 0; display: grid; gap: .5rem; grid-template-columns: 6.5rem 1fr; padding: .1rem 0; }
  td::before { color: var(--soft); content: attr(data-label); }
  td:empty { display: none; }
}
"""


@frozen(kw_only=True)
class Page:
    """The page, and the same as JSON.

    *review* ends a human review, or raises ValueError; *names* are those of `Guarded`.
    """

    registry: Registry
    review: Callable[[JobRef, str], None]
    names: AbstractSet[str]

    @property
    def routes(self) -> list[Route]:
        """The routes."""
        views = (("GET", "/", self._home), ("GET", "/sandbox/jobs", self._json), ("POST", "/sandbox/review", self._end))
        return [
            Route(path, view, methods=[method], middleware=[Middleware(Guarded, self.names)])
            for method, path, view in views
        ]

    async def _home(self, request: Request) -> Response:
        return HTMLResponse(_page(self.registry), headers=_HEADERS)

    async def _json(self, request: Request) -> Response:
        now = self.registry.now()
        jobs = self.registry.jobs.values()
        return JSONResponse([_as_dict(job, self.registry.polls(job.ref), now) for job in jobs], headers=_HEADERS)

    async def _end(self, request: Request) -> Response:
        site, origin = request.headers.get("sec-fetch-site", "none"), request.headers.get("origin", root_of(request))
        if site not in ("same-origin", "none") or origin != root_of(request):
            return PlainTextResponse("Reviews can be ended from the page of the sandbox only.", 403)
        try:
            form = parse_qs((await read(request, _MAX_FORM_BYTES)).decode(), max_num_fields=2)
        except ValueError:
            form = {}
        number, outcome = (form.get(name, [""])[-1] for name in ("smile_job_id", "outcome"))
        job = self.registry.numbered.get(number)
        if job is None or outcome not in _OUTCOMES:
            return PlainTextResponse("Give the smile_job_id of a job, and the outcome approved or rejected.", 400)
        try:
            self.review(job.ref, outcome)
        except ValueError as error:
            return PlainTextResponse(str(error), 409)
        return RedirectResponse("/", status_code=303, headers=_HEADERS)


def _as_dict(job: Job, polls: int, now: datetime) -> dict[str, object]:
    return {
        "smile_job_id": job.smile_job_id,
        "user_id": job.ref.user_id,
        "job_id": job.ref.job_id,
        "job_type": job.job_type,
        "stage": job.stage(now).value,
        "result_code": job.result_code,
        "refusal": job.refusal,
        "polls": polls,
        "submitted_at": _format(job.ref.submitted_at),
        "uploaded_at": _format(job.uploaded_at),
        "complete_at": _format(job.complete_at),
        "final_at": _format(job.final_at),
    }


def _format(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _page(registry: Registry) -> str:
    jobs, now = registry.jobs.values(), registry.now()
    count = "No jobs yet." if not jobs else "1 job." if len(jobs) == 1 else f"{len(jobs)} jobs."
    head = "".join(f"<th>{label}</th>" for label in _LABELS)
    rows = "".join(_row(job, registry.polls(job.ref), now) for job in reversed(jobs))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if jobs else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Smile ID sandbox</title><style>{_STYLE}</style></head><body><h1>Smile ID sandbox</h1>"
        f'<p>{count} As JSON: <a href="/sandbox/jobs">/sandbox/jobs</a>. <a href="/">Reload</a>. '
        f"Do not use real data here.</p>{table}</body></html>"
    )


def _row(job: Job, polls: int, now: datetime) -> str:
    stage = job.stage(now)
    state, kind = stage.value, "waiting"
    if stage is Stage.FINAL:
        state = f"{job.result_code} {text_for(job.result_code)}"
        kind = f"final {verdict_by_code(job.result_code)}"
    elif stage is Stage.REFUSED:
        state, kind = f"refused with {job.refusal}", "refused"
    cells = (
        escape(job.ref.job_id),
        escape(job.ref.user_id),
        job.smile_job_id,
        f"{job.job_type} {JOB_TYPES[job.job_type]}",
        f'<span class="{kind}">{escape(state)}</span>',
        str(polls),
        _buttons(job) if stage is Stage.UNDER_REVIEW else "",
    )
    labelled = zip(_LABELS, cells, strict=True)
    return "<tr>" + "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in labelled) + "</tr>"


def _buttons(job: Job) -> str:
    buttons = "".join(
        f'<button name="outcome" value="{outcome}" aria-label="{label} {job.smile_job_id}">{label}</button>'
        for outcome, label in _OUTCOMES.items()
    )
    hidden = f'<input type="hidden" name="smile_job_id" value="{job.smile_job_id}">'
    return f'<form method="post" action="/sandbox/review">{hidden}{buttons}</form>'
