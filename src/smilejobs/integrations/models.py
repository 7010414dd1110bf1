"""Answers as pydantic models, for the schema of a service's own API.

A service sends only the fields that a model has. Personal data are sent only with `PersonalJobStatusModel` and
`PersonalJobResultModel`.

`smilejobs.JobStatus` and `smilejobs.JobResult` are serialized as the models without personal data: pydantic calls their
``__get_pydantic_core_schema__``, which calls `core_schema_of`.
"""

from datetime import datetime
from typing import Annotated, ClassVar, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from smilejobs.model.codes import Verdict
from smilejobs.model.jobs import JobResult, JobStatus


def _replace_surrogates(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


_Text = Annotated[str, BeforeValidator(_replace_surrogates)]
"""A text in which half surrogate pairs are replaced: JSON may hold them, but pydantic refuses them."""


class PartnerParamsModel(BaseModel, frozen=True):
    """The ids and the type of a job, as the API returns them."""

    user_id: _Text | None
    job_id: _Text | None
    job_type: int | None


class JobResultModel(BaseModel, frozen=True):
    """The outcome of one job, see `smilejobs.JobResult`; without personal data."""

    _personal: ClassVar[bool] = False

    result_code: _Text | None
    result_text: _Text | None
    result_type: _Text | None
    smile_job_id: _Text | None
    partner_params: PartnerParamsModel | None
    confidence_value: float | None
    actions: dict[_Text, _Text]
    is_final_result: bool | None
    is_machine_result: bool | None

    @classmethod
    def of(cls, result: JobResult) -> Self:
        """Return the model of a result, with the values of its ``as_dict``."""
        return cls.model_validate(result.as_dict(personal=cls._personal))


class PersonalJobResultModel(JobResultModel, frozen=True):
    """The outcome of one job, with the personal data of the ID authority."""

    _personal: ClassVar[bool] = True

    country: _Text | None
    id_type: _Text | None
    id_number: _Text | None
    full_name: _Text | None
    first_name: _Text | None
    last_name: _Text | None
    other_name: _Text | None
    dob: _Text | None
    gender: _Text | None
    address: _Text | None
    phone_number: _Text | None
    phone_number2: _Text | None
    expiration_date: _Text | None
    issuance_date: _Text | None
    secondary_id_number: _Text | None
    id_status: _Text | None
    photo: _Text | None
    document: _Text | None


class ImageLinkModel(BaseModel, frozen=True):
    """A link to a picture or a receipt; *url* is a secret, and None unless it was requested."""

    url: _Text | None = None
    expires_at: datetime | None


class JobStatusModel(BaseModel, frozen=True):
    """One answer about one job, see `smilejobs.JobStatus`; without personal data, also in the history."""

    _personal: ClassVar[bool] = False

    user_id: _Text
    job_id: _Text
    job_complete: bool
    job_success: bool | None
    code: _Text | None
    message: _Text | None
    verdict: Verdict | None
    is_final: bool
    timestamp: datetime | None
    result: JobResultModel | None
    history: tuple[JobResultModel, ...]
    image_links: dict[_Text, ImageLinkModel | _Text | None] | None
    receipt: ImageLinkModel | None

    @classmethod
    def of(cls, status: JobStatus, *, links: bool = False) -> Self:
        """Return the model of an answer, with the values of its ``as_dict``.

        Args:
            status: The answer, for example from `Client.wait`.
            links: Include the URLs of the image links and of the receipt, which are secrets.
        """
        return cls.model_validate(status.as_dict(personal=cls._personal, links=links))


class PersonalJobStatusModel(JobStatusModel, frozen=True):
    """One answer about one job, with personal data."""

    _personal: ClassVar[bool] = True

    result: PersonalJobResultModel | None
    history: tuple[PersonalJobResultModel, ...]


def core_schema_of(cls: type[JobStatus] | type[JobResult], handler: GetCoreSchemaHandler) -> CoreSchema:
    """Return the schema with which pydantic serializes an answer or a result, without personal data and links.

    The schema validates instances, but refuses JSON, because an answer comes only from the API.

    Args:
        cls: `JobStatus` or `JobResult`.
        handler: The function of pydantic that returns the schema of the model.
    """
    model = JobStatusModel if issubclass(cls, JobStatus) else JobResultModel
    schema = handler(model)

    def refuse(_: object) -> NoReturn:
        raise ValueError(f"a {cls.__name__} comes from the API and cannot be read from JSON")

    return core_schema.json_or_python_schema(
        json_schema=core_schema.no_info_after_validator_function(refuse, schema),
        python_schema=core_schema.is_instance_schema(cls),
        serialization=core_schema.plain_serializer_function_ser_schema(model.of, return_schema=schema),
    )
