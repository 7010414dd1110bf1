"""Write the log as one JSON object per line, with the fields of each event."""

import json
import logging
from datetime import UTC, datetime

FIELDS = ("event_name", "tag", "code", "verdict", "error_type", "http_status", "polls", "delay", "elapsed")


class JSONFormatter(logging.Formatter):
    """A line for each record, ready for a log collector."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
