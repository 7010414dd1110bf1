"""A Celery task that waits for a job in short pieces, so that a worker process is never blocked for long."""

from celery import Celery, Task
from celery.signals import worker_process_shutdown

import smilejobs
from sync_client import close_sync_client, sync_client

app = Celery("verification", broker_url="memory://", result_backend="cache+memory://")


@app.task(bind=True, max_retries=None, acks_late=True)
def verify(self: Task, user_id: str, job_id: str) -> str | None:
    try:
        status = sync_client().wait(user_id, job_id, timeout=20)
    except smilejobs.WaitTimeoutError as error:
        raise self.retry(countdown=60) from error
    return status.verdict


@worker_process_shutdown.connect
def close(**_: object) -> None:
    close_sync_client()
