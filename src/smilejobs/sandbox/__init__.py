"""The Job Status API on your machine, for tests and for trying things out. Do not use real data with it.

It needs ``pip install 'smilejobs[sandbox]'``.
"""

try:
    import starlette as _starlette
    import uvicorn as _uvicorn
except ImportError as error:
    raise ImportError("the sandbox needs starlette and uvicorn: pip install 'smilejobs[sandbox]'") from error

from smilejobs.sandbox.callbacks import Delivery
from smilejobs.sandbox.distributions import Lognormal, Mixture
from smilejobs.sandbox.faults import FAULT_PROFILES, FaultProfile
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.sandbox import Sandbox

__all__ = ["FAULT_PROFILES", "Delivery", "FaultProfile", "Job", "Lognormal", "Mixture", "Sandbox", "Stage"]

del _starlette, _uvicorn
