"""Use a proxy and a certificate authority that only this client needs, not the whole process."""

import ssl

import httpx

import smilejobs


def http_client(ca_file: str, proxy_url: str | None) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca_file), proxy=proxy_url, trust_env=False)


async def job_status(ca_file: str, proxy_url: str | None, user_id: str, job_id: str) -> smilejobs.JobStatus:
    async with (
        http_client(ca_file, proxy_url) as connections,
        smilejobs.Client.from_env(http_client=connections) as client,
    ):
        return await client.job_status(user_id, job_id)
