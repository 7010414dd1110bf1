"""A service on aiohttp: start waiting, ask for progress, receive the callback, get the result.

Put your own authentication before the routes under /jobs: whoever knows two ids could ask for the outcome.
"""

import json
import logging
import os
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import anyio
from aiohttp import web
from aiohttp.typedefs import Handler
from anyio.abc import TaskGroup

import smilejobs
from smilejobs.integrations.aiohttp import CLIENT, callback_handler, cleanup_ctx

PATIENCE = 25.0
"""Seconds for which a request is kept waiting: less than any proxy allows, and than a graceful shutdown may take."""

TASKS: web.AppKey[TaskGroup] = web.AppKey("tasks", TaskGroup)

log = logging.getLogger("service")
routes = web.RouteTableDef()


def job_of(request: web.Request) -> smilejobs.JobRef:
    try:
        return smilejobs.JobRef(request.match_info["user_id"], request.match_info["job_id"], datetime.now(UTC))
    except ValueError as error:
        raise web.HTTPUnprocessableEntity(text=str(error)) from None


@routes.get("/jobs/{user_id}/{job_id}")
async def progress(request: web.Request) -> web.Response:
    """How the job is doing now."""
    job = job_of(request)
    status = await request.app[CLIENT].job_status(job.user_id, job.job_id)
    return web.json_response(status.as_dict())


@routes.get("/jobs/{user_id}/{job_id}/result")
async def result(request: web.Request) -> web.Response:
    """The result, once it is there."""
    job = job_of(request)
    try:
        status = await request.app[CLIENT].wait(
            job.user_id, job.job_id, timeout=PATIENCE, pace=smilejobs.Pace.relaxed()
        )
    except smilejobs.WaitTimeoutError as error:
        return web.json_response(None if error.last is None else error.last.as_dict(), status=202)
    return web.json_response(status.as_dict())


@routes.post("/jobs/{user_id}/{job_id}")
async def start(request: web.Request) -> web.Response:
    """A job was submitted: wait for its outcome, whether or not somebody asks for it."""
    request.app[TASKS].start_soon(settle, request.app[CLIENT], job_of(request))
    return web.Response(status=202)


async def settle(client: smilejobs.Client, job: smilejobs.JobRef) -> None:
    try:
        status = await client.wait(
            job.user_id,
            job.job_id,
            submitted_at=job.submitted_at,
            until="final",
            timeout=timedelta(hours=6),
            pace=smilejobs.Pace.relaxed(),
        )
    except smilejobs.SmileJobsError as error:
        log.warning("no outcome: %s", error)
    except Exception:
        log.exception("job %s: no outcome", job.tag)
    else:
        log.info("outcome: %s", status)  # here your service opens the account, or does not


async def background(app: web.Application) -> AsyncIterator[None]:
    """The tasks that belong to no request. A restart forgets them: keep your jobs in a table, and start them again."""
    async with anyio.create_task_group() as tasks:
        app[TASKS] = tasks
        yield
        tasks.cancel_scope.cancel()


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    """Whether the service runs, not whether Smile ID does: a restart would not mend that."""
    return web.json_response("ok")


@web.middleware
async def refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What Smile ID cannot answer. The texts of the library's errors hold no ids and no personal data."""
    try:
        return await handler(request)
    except smilejobs.JobNotFoundError as error:
        raise web.HTTPNotFound(text=str(error)) from None
    except smilejobs.SmileJobsError as error:
        raise web.HTTPBadGateway(text=str(error)) from None


def create_app() -> web.Application:
    app = web.Application(middlewares=[refusing])
    app.cleanup_ctx.append(cleanup_ctx())
    app.cleanup_ctx.append(background)
    app.router.add_post("/smile-callback", callback_handler(smilejobs.CallbackVerifier.from_env()))
    app.add_routes(routes)
    return app


class JSONLines(logging.Formatter):
    """One JSON object per line. Of an error, where it happened: its text may quote anything."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": record.created, "level": record.levelname, "logger": record.name, "text": record.getMessage()}
        if record.exc_info and record.exc_info[0]:
            line |= {"error": record.exc_info[0].__name__, "where": traceback.format_tb(record.exc_info[2])}
        return json.dumps(line)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(JSONLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # No access log, for the paths hold ids. A handler, and its wait, ends when its HTTP client goes.
    web.run_app(
        create_app(),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        access_log=None,
        print=None,
        handler_cancellation=True,
    )
