"""The methods that callers of a client use."""

from collections.abc import AsyncIterator, Callable, Collection, Sized
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from os import PathLike
from pathlib import Path

from smilejobs.client.arguments import check_names, check_progress, include
from smilejobs.client.base import BaseClient
from smilejobs.durations import Duration
from smilejobs.events import Notified
from smilejobs.images import Image, SavedImages
from smilejobs.model.callback import Callback
from smilejobs.model.jobs import JobRef, JobStatus
from smilejobs.outcomes import JobRefs, Outcome, Progress
from smilejobs.polling.pace import PaceFunction
from smilejobs.polling.rules import Terms, Until
from smilejobs.waiting import ask


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
        transport: What carries the requests if there is no such client: "httpx", on asyncio and trio, or "aiohttp",
            which is several times faster, on asyncio, with the extra ``fast``. None is aiohttp where it can be.
        max_connections: How many requests may be under way at once, and how large the pool of connections is.
        rate: How many polls may begin in one second, evenly spread, without bursts; None for no limit. The vendor
            documents no limit, so the default is polite.
        request_timeout: Seconds (or a timedelta) for one request, of a picture too, from connecting to the last byte.
        attempts: How often `job_status` asks, and a picture is fetched, in all when a failure is transient.
        max_response_bytes: The most bytes that a picture may have, or an answer, as it comes and when it is inflated.
            The default, 8 MiB, has room for a history of results of up to 1.5 MB each. See docs/answers.md.
        insecure_http: Allow plain ``http://`` beyond loopback, for example between containers. Dangerous: a signature
            covers neither body nor job: one request that is seen can sign all others until the key changes.
        now: The wall clock, as a function that returns an aware datetime. It dates signatures and ages.
        image_hosts: The hosts from which pictures may come; a ``*`` in a name is any part of a label. By default the
            vendor's buckets at Amazon S3, `IMAGE_HOSTS`. Loopback is allowed if *base_url* is on loopback.
        hooks: Functions that are told what happens, see `smilejobs.events`; in the place of the default one, which
            writes it to the log.

    Raises:
        ImportError: The transport needs an extra that is not installed.
        TypeError: An argument has the wrong type (a partner id that is a number has lost its zeros).
        ValueError: An argument can never be right; the text names it.
    """

    async def job_status(
        self, user_id: str, job_id: str, *, image_links: bool = False, history: bool = False
    ) -> JobStatus:
        """Ask once how a job is doing.

        A failure that is transient is tried again, up to ``attempts`` times in all, unless the API asks for a rest of
        more than 30 s: then the error says for how long.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            image_links: Ask for links to the pictures, which expire.
            history: Ask for all results of this user, other jobs' among them.

        Returns:
            The answer, pending or complete. A job without images yet (2314) is pending.

        Raises:
            TypeError: An id is not a string.
            ValueError: An id is empty.
            RequestError: There was no answer.
            BadResponseError: The answer cannot be read.
            GatewayError: Something else answered in the API's place, or `base_url` is wrong.
            SignatureError: The answer must not be believed: it does not verify.
            WrongJobError: The answer must not be believed: it speaks of another job.
            CredentialsError: Partner id, API key, clock and environment do not fit each other.
            JobNotFoundError: The API knows no such job (yet).
            ApiError: The API said no for another reason.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        ref = JobRef(user_id, job_id)
        return await ask(self.engine, ref, include(image_links=image_links, history=history))

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

        Polls at a pace that fits the age of the job. Failures that pass (no connection, 429, 5xx, an answer that is not
        the API's, a job that is not there yet) are absorbed; a rejection is a result like any other and is returned,
        see `JobStatus.raise_for_verdict`.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            timeout: Seconds (or a timedelta) for the whole wait; it cuts through a request under way. None for no
                limit.
            until: "complete" (``job_complete`` is true), or "final", which goes on while the outcome is provisional.
                Human review takes minutes to hours. A complete answer whose result code is in no table is final, and
                its verdict is `Verdict.UNKNOWN`.
            pace: A `Pace`, or any function ``(age, polls) -> seconds``; ``Pace()`` by default.
            first_after: Seconds (or a timedelta) before the first poll.
            submitted_at: When the job was submitted (aware), if that was not just now: it gives the job's age.
            image_links: Ask for links to the pictures, which expire.
            history: Ask for all results of this user, other jobs' among them.

        Returns:
            The answer that ended the wait.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument that can never be right.
            WaitTimeoutError: The wait is over, the job is not; waiting again goes on.
            TooManyFailuresError: 20 polls in a row failed.
            JobNotFoundError: The API still knows no such job when it is 120 s old.
            NoZipError: The job still has no images when it is 120 s old.
            CredentialsError: Partner id, API key, clock and environment do not fit each other.
            UntrustedError: An answer does not verify or speaks of another job.
            ApiError: The API said no for a reason that does not pass.
            RequestError: The server's certificate is not trusted, and the API has never answered this client.
            GatewayError: The HTTP status says that `base_url` is wrong, and the API has never answered this client.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        ref = JobRef(user_id, job_id, submitted_at)
        terms = Terms(timeout=timeout, until=until, pace=pace, first_after=first_after)
        return await self._wait(ref, terms, image_links=image_links, history=history).result()

    def watch(
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
    ) -> AsyncIterator[JobStatus]:
        """Wait as `wait` does, and yield every change on the way; the last answer ends the iteration.

        An answer is a change if its code, message, ``job_complete``, ``job_success``, result or history differs from
        the last one's. The clock of *timeout* starts with the iteration and runs on while the caller has an answer.
        Arguments and errors are those of `wait`; wrong arguments are refused by the call itself.
        """
        ref = JobRef(user_id, job_id, submitted_at)
        terms = Terms(timeout=timeout, until=until, pace=pace, first_after=first_after)
        return self._wait(ref, terms, image_links=image_links, history=history)

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

        The failure of one job is an outcome and does not end the others. What does end the batch is raised by the
        iteration, bare, after the outcomes that are known: an error of *refs*, of *pace* or of *on_progress*, the
        second `CredentialsError` in a row, or a `TooManyFailuresError` when 30 polls in a row failed without one good
        answer; the jobs that are pending then have outcomes with a `WaitTimeoutError`. Leaving the block stops all
        work.

        A pending job costs less than a kilobyte. Jobs that are due are polled in the order in which they fell due. When
        the API cannot keep up (429, 503, many 5xx or broken connections), all polls slow down together.

        Args:
            refs: `JobRef`s, or pairs of user_id and job_id, from any iterable or async iterable. It is read only as
                there is room. A job that is pending already is not polled twice, but reported for each time that it
                comes.
            timeout: Seconds (or a timedelta) for each job, from its first poll; every job gets at least two. It stands
                still while more outcomes are waiting than the caller takes, and while a throttled batch may not poll
                the jobs that are due. None for no limit.
            deadline: Seconds (or a timedelta) for the whole batch, from entering the block; None for no limit. Then
                each pending job gets a `WaitTimeoutError`, and no more of *refs* is read.
            until: "complete" or "final", as for `wait`.
            pace: As for `wait`.
            concurrency: How many polls may be under way at once, at most the client's ``max_connections``, which None
                stands for.
            max_pending: How many jobs may be pending at once, at a kilobyte each.
            on_progress: Called with a `Progress` every 0.2 s, and at the end.
            image_links: Ask for links to the pictures, which expire.
            history: Ask for all results of each user, other jobs' among them.

        Returns:
            A context manager; what it returns on entering is iterated over once.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument that can never be right.
            RuntimeError: On entering: the client is closed, or belongs to another event loop.
        """
        return self._many(
            refs,
            Terms(timeout=timeout, until=until, pace=pace),
            concurrency=concurrency,
            max_pending=max_pending,
            on_progress=on_progress,
            deadline=deadline,
            image_links=image_links,
            history=history,
        ).running()

    def images(self, user_id: str, job_id: str, *, names: Collection[str] | None = None) -> AsyncIterator[Image]:
        """Ask for the links to the pictures of a job, and iterate over the pictures.

        ::

            async for image in client.images("user-1", "job-1"):
                print(image.name, image.content_type, len(image.data))

        Each picture is fetched when it is asked for. If its link has expired by then, is about to, or is refused, the
        links are asked for again, once for each picture; what else may pass is tried again, up to ``attempts`` times.
        A picture that cannot be fetched does not keep back the others: the iteration raises the error after them.

        Nothing but the request itself goes to the store: no header of yours, no cookie, no signature. The client's
        ``http_client`` is not used.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            names: The vendor's names of the pictures that are wanted, such as "selfie_image"; None for all.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An id is empty.
            ImageError: There are no links, or pictures could not be fetched; ``.reason`` says why, ``.others`` has the
                errors of further pictures.
            SmileJobsError: The poll failed, as `job_status` does.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        from smilejobs.images.one import Images

        check_names(names)
        return Images(self._gallery, JobRef(user_id, job_id), names)

    async def save_images(
        self, user_id: str, job_id: str, folder: str | PathLike[str], *, names: Collection[str] | None = None
    ) -> list[Path]:
        """Save the pictures of a job, fetched as `images` does, as files of a folder.

        A file has its name only when it is whole and on the disk. The name is made of hashes of the ids and of the
        vendor's name for the picture; only its owner can read it. Files that exist are left as they are.

        Args:
            user_id: The ``user_id`` that the job was submitted with.
            job_id: The ``job_id`` that the job was submitted with.
            folder: Where to; it must exist.
            names: As for `images`.

        Returns:
            The files.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An id is empty.
            ImageError: There are no links, or pictures could not be fetched or written; ``.reason`` says why,
                ``.others`` has the errors of further pictures, ``.saved`` the files that were written all the same.
            SmileJobsError: The poll failed, as `job_status` does.
            RuntimeError: The client is closed, or belongs to another event loop.
        """
        from smilejobs.images.one import save

        check_names(names)
        return await save(self._gallery, JobRef(user_id, job_id), names, Path(folder))

    def save_images_many(
        self,
        refs: JobRefs,
        folder: str | PathLike[str],
        *,
        timeout: Duration | None = 300.0,
        deadline: Duration | None = None,
        until: Until = "complete",
        pace: PaceFunction | None = None,
        concurrency: int | None = None,
        max_pending: int = 100_000,
        on_progress: Callable[[Progress], None] | None = None,
        history: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[SavedImages]]:
        """Wait for many jobs, as `wait_many` does, and save the pictures of each as soon as it is complete.

        ::

            async with client.save_images_many(refs, "pictures") as outcomes:
                async for outcome in outcomes:
                    print(outcome.ref, outcome.paths, outcome.error)

        Files are written as `save_images` writes them. The failure of one job or picture is an outcome and does not end
        the others; what ends the batch is raised as by `wait_many`. A job that comes twice is saved once: its second
        outcome has an `ImageError`, for the files exist.

        Args:
            refs: As for `wait_many`.
            folder: Where to; it must exist.
            timeout: Seconds (or a timedelta) for each job to be complete, as for `wait_many`.
            deadline: Seconds (or a timedelta) for the polling of the whole batch, as for `wait_many`.
            until: "complete" or "final", as for `wait`.
            pace: As for `wait`.
            concurrency: How many polls may be under way at once, and for how many jobs pictures; at most the client's
                ``max_connections``, which None stands for.
            max_pending: As for `wait_many`.
            on_progress: Called with a `Progress` every 0.2 s, and at the end. A job is done when its pictures are
                saved.
            history: Ask for all results of each user, other jobs' among them.

        Returns:
            A context manager; what it returns on entering is iterated over once.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An argument that can never be right.
            ImageError: On entering: the folder is not there.
            RuntimeError: On entering: the client is closed, or belongs to another event loop.
        """
        from smilejobs.images.many import SavingMany

        check_progress(on_progress)
        saving = SavingMany(
            self._gallery,
            Path(folder),
            total=len(refs) if isinstance(refs, Sized) else None,
            concurrency=self.engine.concurrency(concurrency),
            on_progress=on_progress,
        )
        polling = self._many(
            refs,
            Terms(timeout=timeout, until=until, pace=pace),
            concurrency=concurrency,
            max_pending=max_pending,
            on_progress=saving.note,
            deadline=deadline,
            image_links=True,
            history=history,
        )
        return saving.running(polling.running())

    def notify(self, news: Callback | JobRef) -> None:
        """Wake every `wait`, `watch` and `wait_many` of this client that waits for a job: there may be news of it.

        They poll, and that answer is what counts: a notification that lies costs one poll. Several at once cost one;
        one that comes while a poll is under way is kept for after it. If the job turns out to be still running, the
        pace begins anew at its shortest delay. It does nothing if no wait is for the job.

        Other processes do not hear of it: tell them by your own means, and call this there with a `JobRef`.

        Args:
            news: What `CallbackVerifier.verify` returned, or just the job.

        Raises:
            TypeError: *news* is something else.
            RuntimeError: It was called in another thread than that of the client's event loop.
        """
        ref = news.ref if isinstance(news, Callback) else news
        if not isinstance(ref, JobRef):
            raise TypeError(f"news must be a Callback or a JobRef, not {type(news).__name__}")
        self.engine.exchange.check_thread()
        self.engine.exchange.emit(Notified(ref=ref))
        self.engine.notifications.notify(ref)
