"""A Django view that waits for a job: for a WSGI server with threads."""

from django.http import HttpRequest, JsonResponse
from django.urls import path

import smilejobs
from sync_client import sync_client


def result(request: HttpRequest, user_id: str, job_id: str) -> JsonResponse:
    """Answer with the result, or with 202 if there is none yet; the browser asks again."""
    try:
        status = sync_client().wait(user_id, job_id, timeout=20)
    except smilejobs.WaitTimeoutError:
        return JsonResponse({"state": "pending"}, status=202)
    return JsonResponse(status.as_dict())


urlpatterns = [path("jobs/<str:user_id>/<str:job_id>/result", result)]
