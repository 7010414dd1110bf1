"""A Smile ID of your own, for tests and for trying things out: the Job Status API on your machine.

It needs ``pip install 'smilejobs[sandbox]'``. It holds no real data and is no place for any.
"""

try:
    import starlette as _starlette
    import uvicorn as _uvicorn
except ImportError as error:
    raise ImportError("the sandbox needs starlette and uvicorn: pip install 'smilejobs[sandbox]'") from error

from smilejobs.sandbox.app import Sandbox
from smilejobs.sandbox.callbacks import Delivery
from smilejobs.sandbox.dice import Lognormal
from smilejobs.sandbox.jobs import Job, Stage
from smilejobs.sandbox.weather import WEATHERS, Weather

__all__ = ["WEATHERS", "Delivery", "Job", "Lognormal", "Sandbox", "Stage", "Weather"]

del _starlette, _uvicorn
