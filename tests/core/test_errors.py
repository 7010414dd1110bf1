"""The tree of exceptions."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import smilejobs
from smilejobs import (
    ApiError,
    BadRequestError,
    BadResponseError,
    CallbackError,
    CredentialsError,
    GatewayError,
    ImageError,
    JobNotFoundError,
    JobStatus,
    NotApprovedError,
    NoZipError,
    RateLimitedError,
    RequestError,
    ServerError,
    SignatureError,
    SmileJobsError,
    TooManyFailuresError,
    UntrustedError,
    UserDisabledError,
    UserNotFoundError,
    WaitTimeoutError,
    WatchListError,
    WrongJobError,
)
from tests.helpers.bodies import REF, complete, read, signed

STATUS = read(signed(complete(job_success=False)))


def tree(cls: type[SmileJobsError] = SmileJobsError) -> Iterator[type[SmileJobsError]]:
    """Return every class of the library's own tree."""
    yield cls
    for child in cls.__subclasses__():
        if child.__module__.startswith("smilejobs."):
            yield from tree(child)


COMMON: dict[str, Any] = {"ref": REF, "code": "2098", "http_status": 418, "retry_after": 2.5}


def example(cls: type[Any]) -> SmileJobsError:
    """Return an error with a value in every attribute, an own `transient` included."""
    if cls is NotApprovedError:
        return NotApprovedError(STATUS)
    if cls is WaitTimeoutError:
        last_error = ServerError("oh", text="words", ref=REF)
        return WaitTimeoutError(
            "too long",
            ref=REF,
            last=STATUS,
            last_error=last_error,
            polls=3,
            elapsed=4.5,
            age=5.5,
            timeout=6.5,
            retry_after=7.5,
        )
    if cls is TooManyFailuresError:
        return TooManyFailuresError("too many", ref=REF, last=STATUS, last_error=ApiError("oh", **COMMON), polls=20)
    if cls is CallbackError:
        return CallbackError("too old", reason="stale", ref=REF)
    if cls is ImageError:
        one = ImageError("it is too large", reason="oversized", name="selfie_image", ref=REF)
        saved = (Path("a.png"),)
        return ImageError(
            "it is gone", reason="expired", name="selfie_image", text="words", saved=saved, others=(one,), ref=REF
        )
    more: dict[str, Any] = {"text": "the API's words"} if issubclass(cls, (ApiError, GatewayError)) else {}
    if cls is GatewayError:
        more["wrong_url"] = True
    error: SmileJobsError = cls("it went wrong", transient=not cls.transient, **COMMON, **more)
    return error


def content(error: object) -> object:
    """Return an error, with the errors inside it, in a form that can be compared."""
    if isinstance(error, tuple):
        return tuple(map(content, error))
    if not isinstance(error, SmileJobsError):
        return error
    return type(error), error.args, str(error), error.transient, {key: content(own) for key, own in vars(error).items()}


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("cls", list(tree()))
def test_every_error_is_copied_and_pickled_with_all_that_it_carries(
    cls: type[Any], again: Callable[[Any], Any]
) -> None:
    """Type, text and every attribute survive, also those of an error inside an error."""
    error = example(cls)
    assert len(vars(error)) >= 4
    assert content(again(error)) == content(error)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_will_do(protocol: int) -> None:
    """The errors can be pickled with every protocol."""
    error = example(WaitTimeoutError)
    assert content(pickle.loads(pickle.dumps(error, protocol))) == content(error)


def test_notes_are_kept() -> None:
    """Notes that a caller added survive copying and pickling."""
    error = example(ApiError)
    error.add_note("seen at night")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen at night"]


PARENTS = {
    RequestError: SmileJobsError,
    BadResponseError: SmileJobsError,
    GatewayError: SmileJobsError,
    UntrustedError: SmileJobsError,
    SignatureError: UntrustedError,
    WrongJobError: UntrustedError,
    ApiError: SmileJobsError,
    CredentialsError: ApiError,
    JobNotFoundError: ApiError,
    NoZipError: ApiError,
    UserDisabledError: ApiError,
    UserNotFoundError: ApiError,
    BadRequestError: ApiError,
    RateLimitedError: ApiError,
    ServerError: ApiError,
    WaitTimeoutError: SmileJobsError,
    TooManyFailuresError: SmileJobsError,
    NotApprovedError: SmileJobsError,
    CallbackError: SmileJobsError,
    ImageError: SmileJobsError,
    WatchListError: SmileJobsError,
}


@pytest.mark.parametrize(("cls", "parent"), PARENTS.items())
def test_the_tree_has_this_shape(cls: type[SmileJobsError], parent: type[SmileJobsError]) -> None:
    """Each error has its place in the tree, is public, and has a docstring."""
    assert cls.__bases__[0] is parent
    assert getattr(smilejobs, cls.__name__) is cls
    assert cls.__doc__


def test_every_error_is_public() -> None:
    """Callers can import every class that they can receive."""
    assert {cls.__name__ for cls in tree()} <= set(smilejobs.__all__)


@pytest.mark.parametrize("cls", list(tree()))
def test_what_may_pass_is_transient(cls: type[SmileJobsError]) -> None:
    """By class, only these errors are transient."""
    assert cls.transient is (cls in {RequestError, BadResponseError, RateLimitedError, ServerError})


def test_transient_can_be_said_of_one_error() -> None:
    """One error can differ from its class, and does not change the class."""
    assert not RequestError("untrusted certificate", transient=False).transient
    assert ApiError("later", transient=True).transient
    assert RequestError.transient
    assert not ApiError.transient


def test_a_timeout_is_caught_as_a_timeout() -> None:
    """`except TimeoutError` catches the end of a wait."""
    with pytest.raises(TimeoutError) as caught:
        raise example(WaitTimeoutError)
    assert str(caught.value) == f"too long [job {REF.tag}]"
    assert isinstance(caught.value, SmileJobsError)


def test_too_many_failures_carry_what_the_last_one_carried() -> None:
    """Code, HTTP status and hint are those of the last failure."""
    error = example(TooManyFailuresError)
    assert (error.code, error.http_status, error.retry_after) == ("2098", 418, 2.5)


def test_not_approved_carries_the_answer() -> None:
    """The answer is in the error, and its tag is in the text."""
    error = example(NotApprovedError)
    assert isinstance(error, NotApprovedError)
    assert isinstance(error.status, JobStatus)
    assert (error.ref, error.code) == (REF, "2302")
    assert "unknown" in str(error)


@pytest.mark.parametrize("cls", list(tree()))
def test_texts_name_the_job_by_its_tag(cls: type[SmileJobsError]) -> None:
    """The ids, the texts of the API and the answer are in attributes, not in the text or the repr."""
    error = example(cls)
    assert str(error).endswith(f" [job {REF.tag}]")
    for secret in (REF.user_id, REF.job_id, "words", "Enroll"):
        assert secret not in f"{error} {error!r}"


def test_without_a_job_the_text_is_just_the_text() -> None:
    """An error without a job has no tag."""
    assert str(SmileJobsError("what")) == "what"
    assert SmileJobsError("what").ref is None
