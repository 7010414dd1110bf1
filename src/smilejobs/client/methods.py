"""The methods that callers of a client use."""

from collections.abc import AsyncIterator, Callable, Collection, Sized
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Unpack, overload

from smilejobs.client.arguments import SaveManyOptions, WaitOptions, check_names, check_progress, include, job_of
from smilejobs.client.base import BaseClient
from smilejobs.durations import Duration
from smilejobs.events import Notified
from smilejobs.images import Image, SavedImages
from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.pace import PaceFunction
from smilejobs.polling.rules import Until
from smilejobs.waiting import poll_with_retries


class Client(BaseClient):
    """Asks the Job Status API, and waits for its answers.

    One client per event loop serves any number of concurrent calls; it may be used with and without ``async with``.

    Args:
        partner_id: As the vendor's portal shows it, with its leading zeros: "085".
        api_key: The signature key of that environment.
        environment: "sandbox" or "production"; or else
        base_url: Another URL of the API. It ends in ``/v1``, as those of the vendor's own clients do.
        http_client: A client of yours, which stays yours and is never closed here. An `httpx.AsyncClient` or
            `httpx2.AsyncClient` is used as it is, with its proxies, certificates, limits and hooks; let none of its
            hooks raise for an HTTP status, for the API says more in the body. Of an `aiohttp.ClientSession`, the
            connector is used: its headers, cookies, credentials and proxies do not travel with our requests.
        transport: What carries the requests if there is no such client: "httpx" or "httpx2" (extra ``httpx2``), on
            asyncio and trio, or "aiohttp" (extra ``fast``), on asyncio, which is several times faster. None is aiohttp
            where it is installed and asyncio runs, else httpx.
        max_connections: How many requests may be under way at once, and how large the pool of connections is.
        rate: How many polls may begin in one second, evenly spread, without bursts; None for no limit. The vendor
            documents no limit, so the default is polite.
        request_timeout: Seconds (or a timedelta) for one request, of a picture too, from connecting to the last byte.
        attempts: How often `job_status` asks, and a picture is fetched, in all when a failure is transient.
        max_response_bytes: The most bytes that a picture may have, or an answer, as it comes and when it is inflated.
            The default, 8 MiB, has room for a history of results of up to 1.5 MB each. See docs/answers.md.
        insecure_http: Allow plain ``http://`` beyond loopback, for example between containers. Dangerous: a signature
            covers neither body nor job: one request that is seen can sign all others until the key changes.
        pace: The pace of waits; None for ``Pace()``. A `LearnedPace` learns from every wait that uses it.
        now: The wall clock, as a function that returns an aware datetime. It dates signatures and ages.
        image_hosts: The hosts from which pictures may come; a ``*`` in a name is any part of a label. By default the
            vendor's buckets at Amazon S3, `IMAGE_HOSTS`. Loopback is allowed if *base_url* is on loopback.
        hooks: Functions that are called with each event, see `smilejobs.events`; by default one that writes to the log.

    Raises:
        ImportError: The transport needs an extra that is not installed.
        TypeError: An argument has the wrong type (a partner id that is a number has lost its zeros).
        ValueError: An argument is invalid; the text names it.
    """

    async def job_status(
        self, user_id: str, job_id: str, *, image_links: bool = False, history: bool = False
    ) -> JobStatus:
        """Poll a job once.

        A transient failure is retried, up to ``attempts`` times in all, unless the API asks for a pause of more than
        30 s; the error then says how long the pause is.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            image_links: Ask for links to the pictures. Links expire.
            history: Ask for all results of this user, including those of other jobs.

        Returns:
            The answer, pending or complete. A job without images yet (2314) is pending.

        Raises:
            TypeError: An id is not a string.
            ValueError: An id is empty.
            RequestError: There was no answer.
            BadResponseError: The answer cannot be read.
            GatewayError: Something other than the API answered, or `base_url` is wrong.
            SignatureError: The signature of the answer is not valid.
            WrongJobError: The answer is about another job.
            CredentialsError: Partner id, API key, clock and environment do not match.
            JobNotFoundError: The API does not know the job (yet).
            ApiError: The API refused the request for another reason.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        ref = JobRef(user_id, job_id)
        return await poll_with_retries(self.engine, ref, include(image_links=image_links, history=history))

    async def wait(
        self,
        user_id: str,
        job_id: str,
        *,
        timeout: Duration | None = 300.0,
        until: Until = "complete",
        pace: PaceFunction | None = None,
        first_after: Duration = 0.0,
        submitted_at: datetime | None = None,
        image_links: bool = False,
        history: bool = False,
    ) -> JobStatus:
        """Wait until a job is complete.

        Polls at a pace that follows the age of the job. Transient failures (no connection, 429, 5xx, an answer that is
        not the API's, a job that the API does not know yet) are absorbed. A rejection is a result like any other and is
        returned, see `JobStatus.raise_for_verdict`.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            timeout: The limit of the whole wait, in seconds or as a timedelta; it interrupts a request under way. None
                for no limit.
            until: "complete" (``job_complete`` is true), or "final", which continues while the outcome is provisional.
                Human review takes minutes to hours. A complete answer with an unknown result code is final, and its
                verdict is `Verdict.UNKNOWN`.
            pace: A `Pace`, or any function ``(age, polls) -> seconds``; that of the client by default.
            first_after: The delay before the first poll, in seconds or as a timedelta.
            submitted_at: The instant of the submission (aware), if that was not just now. The pace follows from it.
            image_links: Ask for links to the pictures. Links expire.
            history: Ask for all results of this user, including those of other jobs.

        Returns:
            The answer that ended the wait.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is invalid.
            WaitTimeoutError: The wait is over, the job is not; wait again to continue.
            TooManyFailuresError: 20 polls in a row failed.
            JobNotFoundError: The API still does not know the job when it is 120 s old.
            NoZipError: The job still has no images when it is 120 s old.
            CredentialsError: Partner id, API key, clock and environment do not match.
            UntrustedError: The signature of an answer is not valid, or it is about another job.
            ApiError: The API refused the request for a reason that is not transient.
            RequestError: The server's certificate is not trusted, and the API has never answered this client.
            GatewayError: The HTTP status says that `base_url` is wrong, and the API has never answered this client.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        wait = self._wait(
            user_id,
            job_id,
            timeout=timeout,
            until=until,
            pace=pace,
            first_after=first_after,
            submitted_at=submitted_at,
            image_links=image_links,
            history=history,
        )
        return await wait.result()

    def watch(self, user_id: str, job_id: str, **options: Unpack[WaitOptions]) -> AsyncIterator[JobStatus]:
        """Wait as `wait` does, and yield every change on the way; the last answer ends the iteration.

        An answer is a change if its code, message, ``job_complete``, ``job_success``, result or history differs from
        the one before. The timeout counts from the start of the iteration, also while the caller handles an answer.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            options: The options of `wait`, with its defaults.

        Raises:
            TypeError: An argument has the wrong type. This and the next are raised by the call itself.
            ValueError: An argument is invalid.
            SmileJobsError: While iterating, as `wait` does.
        """
        return self._wait(user_id, job_id, **options)

    def wait_many(
        self,
        refs: JobRefs,
        *,
        timeout: Duration | None = 300.0,
        deadline: Duration | None = None,
        until: Until = "complete",
        pace: PaceFunction | None = None,
        concurrency: int | None = None,
        max_pending: int = 100_000,
        on_progress: Callable[[Progress], None] | None = None,
        image_links: bool = False,
        history: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome]]:
        """Wait for many jobs, each as `wait` does, and get their outcomes in the order in which they end.

        ::

            async with client.wait_many(refs) as outcomes:
                async for outcome in outcomes:
                    print(outcome.ref, outcome.status or outcome.error)

        The failure of one job is an outcome and does not end the others. An error that ends the batch is raised by the
        iteration, in no exception group, after the outcomes that are known. These are an error of *refs*, of *pace* or
        of *on_progress*, the second `CredentialsError` in a row, and a `TooManyFailuresError` when 30 polls in a row
        failed without one good answer; each pending job then has an outcome with a `WaitTimeoutError`. Leaving the
        block stops all work.

        A pending job costs less than a kilobyte. Jobs that are due are polled in the order in which they fell due. When
        the API cannot keep up (429, 503, many 5xx or broken connections), all polls slow down together.

        Args:
            refs: `JobRef`s, or pairs of user_id and job_id, from any iterable or async iterable. It is read only as
                there is room. A job that comes again while it is pending is not polled twice, but has an outcome for
                each time.
            timeout: The limit for each job, in seconds or as a timedelta, from its first poll; every job is polled at
                least twice. It is suspended while the caller takes no outcomes, and while a throttled batch may not
                poll the jobs that are due. None for no limit.
            deadline: The limit for the whole batch, in seconds or as a timedelta, from entering the block; None for no
                limit. At the deadline each pending job has an outcome with a `WaitTimeoutError`, and no more of *refs*
                is read.
            until: "complete" or "final", as for `wait`.
            pace: As for `wait`.
            concurrency: The maximum number of polls under way at once; None for the client's ``max_connections``, which
                is the upper limit.
            max_pending: The maximum number of pending jobs. Each takes up to a kilobyte of memory.
            on_progress: Called with a `Progress` every 0.2 s, and at the end.
            image_links: Ask for links to the pictures. Links expire.
            history: Ask for all results of each user, including those of other jobs.

        Returns:
            A context manager; it returns an iterator over the outcomes, for one iteration.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is invalid.
            RuntimeError: On entering: the client is closed, or belongs to another event loop.
        """
        return self._wait_many(
            refs,
            timeout=timeout,
            deadline=deadline,
            until=until,
            pace=pace,
            concurrency=concurrency,
            max_pending=max_pending,
            on_progress=on_progress,
            image_links=image_links,
            history=history,
        ).running()

    @overload
    def images(self, user_id: str, job_id: str, *, names: Collection[str] | None = None) -> AsyncIterator[Image]: ...
    @overload
    def images(self, job: JobStatus | JobRef, /, *, names: Collection[str] | None = None) -> AsyncIterator[Image]: ...
    def images(
        self, user_id: str | JobStatus | JobRef, job_id: str | None = None, *, names: Collection[str] | None = None
    ) -> AsyncIterator[Image]:
        """Iterate over the pictures of a job.

        ::

            async for image in client.images("user-1", "job-1"):
                print(image.name, image.content_type, len(image.data))

        The links are taken from a `JobStatus`, or else the job is polled for them once. Each picture is fetched when it
        is asked for. If its link has expired by then, is about to, or is refused, the job is polled for new links, once
        for each picture; other transient failures are retried, up to ``attempts`` times. A picture that cannot be
        fetched does not keep back the others: the iteration raises the error after them.

        The store receives only the request itself: no header of yours, no cookie, no signature. The client's
        ``http_client`` is not used.

        Args:
            user_id: The ``user_id`` that the job was submitted with; or a `JobStatus` with links; or a `JobRef`.
            job_id: The ``job_id`` that the job was submitted with.
            names: The vendor's names of the pictures to fetch, such as "selfie_image"; None for all.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An id is empty, or the `JobStatus` of a complete job has no links.
            ImageError: There are no links, or pictures could not be fetched; ``.reason`` says why, ``.others`` has the
                errors of further pictures.
            SmileJobsError: The poll failed, as `job_status` does.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        from smilejobs.images.one import Images

        check_names(names)
        return Images(self._gallery, job_of(user_id, job_id), names)

    @overload
    async def save_images(
        self, user_id: str, job_id: str, folder: str | PathLike[str], *, names: Collection[str] | None = None
    ) -> list[Path]: ...
    @overload
    async def save_images(
        self, job: JobStatus | JobRef, folder: str | PathLike[str], /, *, names: Collection[str] | None = None
    ) -> list[Path]: ...
    async def save_images(
        self,
        user_id: str | JobStatus | JobRef,
        job_id: str | PathLike[str] | None = None,
        folder: str | PathLike[str] | None = None,
        *,
        names: Collection[str] | None = None,
    ) -> list[Path]:
        """Save the pictures of a job, fetched as `images` does, as files in a folder.

        A file gets its name only when it is complete and on the disk. The name is made of hashes of the ids and of the
        vendor's name for the picture; only its owner can read the file. Existing files are not changed.

        Args:
            user_id: The ``user_id`` that the job was submitted with; or a `JobStatus` with links; or a `JobRef`.
            job_id: The ``job_id`` that the job was submitted with; left out after a `JobStatus` or a `JobRef`.
            folder: Where to save; it must exist.
            names: As for `images`.

        Returns:
            The files.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An id is empty, or the `JobStatus` of a complete job has no links.
            ImageError: There are no links, or pictures could not be fetched or written; ``.reason`` says why,
                ``.others`` has the errors of further pictures, ``.saved`` the files that were written all the same.
            SmileJobsError: The poll failed, as `job_status` does.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        from smilejobs.images.one import save

        check_names(names)
        if folder is None and not isinstance(user_id, str):
            job_id, folder = None, job_id
        job = job_of(user_id, job_id)
        if folder is None:
            raise TypeError("save_images() needs a folder")
        return await save(self._gallery, job, names, Path(folder))

    def save_images_many(
        self, refs: JobRefs, folder: str | PathLike[str], **options: Unpack[SaveManyOptions]
    ) -> AbstractAsyncContextManager[AsyncIterator[SavedImages]]:
        """Wait for many jobs, as `wait_many` does, and save the pictures of each as soon as it is complete.

        ::

            async with client.save_images_many(refs, "pictures") as outcomes:
                async for outcome in outcomes:
                    print(outcome.ref, outcome.paths, outcome.error)

        Files are written as `save_images` writes them. The failure of one job or picture is an outcome and does not end
        the others; an error that ends the batch is raised as by `wait_many`. A job that comes twice is saved once: its
        second outcome has an `ImageError`, for the files exist.

        Args:
            refs: As for `wait_many`.
            folder: Where to save; it must exist.
            options: The options of `wait_many`, with its defaults, except *image_links*. Pictures of at most
                *concurrency* jobs are fetched at once. *timeout* and *deadline* limit the polling. For *on_progress*, a
                job is done when its pictures are saved.

        Returns:
            A context manager; it returns an iterator over the outcomes, for one iteration.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is invalid.
            ImageError: On entering: the folder does not exist.
            RuntimeError: On entering: the client is closed, or belongs to another event loop.
        """
        from smilejobs.images.many import SavingMany

        on_progress = options.get("on_progress")
        check_progress(on_progress)
        saving = SavingMany(
            self._gallery,
            Path(folder),
            total=len(refs) if isinstance(refs, Sized) else None,
            concurrency=self.engine.concurrency(options.get("concurrency")),
            on_progress=on_progress,
        )
        polling = self._wait_many(refs, image_links=True, **(options | SaveManyOptions(on_progress=saving.note)))
        return saving.running(polling.running())

    def notify(self, news: Callback | JobRef) -> None:
        """Wake every `wait`, `watch` and `wait_many` of this client that waits for a job: there may be news of it.

        They poll, and the answer to that poll counts; a false notification costs one poll. Several notifications at
        once cost one poll; a notification during a poll takes effect after it. If the job is still running, the pace
        starts again at its shortest delay. Without a wait for the job, nothing happens.

        Other processes are not notified: send the `JobRef` to them and call this method there.

        Args:
            news: The result of `CallbackVerifier.verify`, or the job.

        Raises:
            TypeError: *news* is something else.
            RuntimeError: The calling thread is not that of the client's event loop.
        """
        ref = news.ref if isinstance(news, Callback) else news
        if not isinstance(ref, JobRef):
            raise TypeError(f"news must be a Callback or a JobRef, not {type(news).__name__}")
        self.engine.exchange.check_thread()
        self.engine.exchange.emit(Notified(ref=ref))
        self.engine.notifications.notify(ref)
