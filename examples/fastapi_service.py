"""A service on FastAPI: start waiting, ask for progress, receive the callback, get the result.

Put your own authentication before the routes under /jobs: whoever knows two ids could ask for the outcome.
"""

import json
import logging
import os
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import anyio
import uvicorn
from anyio.abc import TaskGroup
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

import smilejobs
from smilejobs.integrations.fastapi import JobStatusModel, SmileClient, callback_router, lifespan, while_connected

PATIENCE = 25.0
"""Seconds for which a request is kept waiting: less than any proxy allows, and than a graceful shutdown may take."""

log = logging.getLogger("service")
api = APIRouter()


async def job_of(user_id: str, job_id: str) -> smilejobs.JobRef:
    try:
        return smilejobs.JobRef(user_id, job_id, datetime.now(UTC))
    except ValueError as error:
        raise HTTPException(422, str(error)) from None


Job = Annotated[smilejobs.JobRef, Depends(job_of)]


@api.get("/jobs/{user_id}/{job_id}")
async def progress(job: Job, client: SmileClient) -> JobStatusModel:
    """How the job is doing now."""
    return JobStatusModel.of(await client.job_status(job.user_id, job.job_id))


@api.get("/jobs/{user_id}/{job_id}/result", responses={202: {"description": "Not yet: ask again."}})
async def result(job: Job, request: Request, response: Response, client: SmileClient) -> JobStatusModel | None:
    """The result, once it is there."""
    wait = client.wait(job.user_id, job.job_id, timeout=PATIENCE, pace=smilejobs.Pace.relaxed())
    try:
        return JobStatusModel.of(await while_connected(request, wait))
    except smilejobs.WaitTimeoutError as error:
        response.status_code = 202
        return None if error.last is None else JobStatusModel.of(error.last)


@api.post("/jobs/{user_id}/{job_id}", status_code=202)
async def start(job: Job, request: Request, client: SmileClient) -> None:
    """A job was submitted: wait for its outcome, whether or not somebody asks for it."""
    request.state.tasks.start_soon(settle, client, job)


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


@asynccontextmanager
async def background(app: FastAPI) -> AsyncGenerator[dict[str, TaskGroup], None]:
    """The tasks that belong to no request. A restart forgets them: keep your jobs in a table, and start them again."""
    async with anyio.create_task_group() as tasks:
        yield {"tasks": tasks}
        tasks.cancel_scope.cancel()


@api.get("/health")
async def health() -> str:
    """Whether the service runs, not whether Smile ID does: a restart would not mend that."""
    return "ok"


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """What Smile ID cannot answer. The texts of the library's errors hold no ids and no personal data."""
    return JSONResponse({"detail": str(error)}, 404 if isinstance(error, smilejobs.JobNotFoundError) else 502)


def create_app() -> FastAPI:
    app = FastAPI(lifespan=lifespan(inner=background))
    app.include_router(callback_router(smilejobs.CallbackVerifier.from_env()))
    app.include_router(api)
    app.add_exception_handler(smilejobs.SmileJobsError, refuse)
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
    # No access log, for the paths hold ids.
    uvicorn.run(create_app(), port=int(os.environ["PORT"]), log_config=None, access_log=False)
