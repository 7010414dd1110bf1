"""A service of several processes: whichever is called back tells the others, by Postgres."""

import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import anyio
import psycopg
import uvicorn
from fastapi import FastAPI, Request

import smilejobs
from smilejobs.integrations.fastapi import (
    JobStatusModel,
    SmileClient,
    callback_router,
    get_client,
    lifespan,
    while_connected,
)

log = logging.getLogger("service")


async def connect() -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)


async def tell(callback: smilejobs.Callback) -> None:
    """Notify every process, this one included. A service with a pool of connections should use one of those."""
    async with await connect() as connection:
        ids = json.dumps([callback.ref.user_id, callback.ref.job_id])
        await connection.execute("SELECT pg_notify('smile_callbacks', %s)", [ids])


async def listen(client: smilejobs.Client) -> None:
    """Notify the waits of this process. While Postgres is not reachable, polling finds the results, a little later."""
    while True:
        try:
            async with await connect() as connection:
                await connection.execute("LISTEN smile_callbacks")
                async with aclosing(connection.notifies()) as notifications:
                    async for notification in notifications:
                        client.notify(smilejobs.JobRef(*json.loads(notification.payload)))
        except psycopg.OperationalError as error:
            log.warning("not listening: %s", type(error).__name__)
        await anyio.sleep(1)


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncGenerator[None, None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen, get_client(app))
        yield
        tasks.cancel_scope.cancel()


async def result(user_id: str, job_id: str, request: Request, client: SmileClient) -> JobStatusModel:
    wait = client.wait(user_id, job_id, pace=smilejobs.Pace.relaxed())
    return JobStatusModel.of(await while_connected(request, wait))


def create_app() -> FastAPI:
    app = FastAPI(lifespan=lifespan(inner=listening))
    app.include_router(callback_router(smilejobs.CallbackVerifier.from_env(), on_callback=tell))
    app.get("/jobs/{user_id}/{job_id}/result")(result)
    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), port=int(os.environ["PORT"]), log_config=None, access_log=False)
