"""The notebook of the examples: run without a browser, and kept without what it has shown."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

pytestmark = pytest.mark.slow

PLACE = Path(__file__).parent.parent.parent / "examples" / "notebook.ipynb"


def kept() -> NotebookNode:
    """The notebook as it is in the repository."""
    notebook: NotebookNode = nbformat.read(PLACE, as_version=4)  # type: ignore[no-untyped-call]  # nbformat is not typed
    return notebook


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """The notebook with its outputs, run by a kernel in a process of its own; a cell that raises is an error."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        notebook = kept()
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute()
    notebook.metadata["report"] = (folder / "report.html").read_text("utf-8")
    return notebook


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def shown(notebook: NotebookNode, kind: str) -> list[str]:
    """All outputs of one kind, in their order."""
    return [str(output.data[kind]) for output in outputs(notebook) if kind in output.get("data", ())]


def test_it_is_kept_without_outputs() -> None:
    """What a notebook has shown may be personal, and is no source."""
    notebook = kept()
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(cell.outputs == [] and cell.execution_count is None and cell.metadata == {} for cell in cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}


def test_it_runs_without_a_complaint(executed: NotebookNode) -> None:
    """From the first cell to the last, with no warning, nothing printed, and everything closed."""
    complaints = [output for output in outputs(executed) if output.output_type in ("error", "stream")]
    assert complaints == []
    assert shown(executed, "text/plain")[-1] == "True"


def test_it_shows_a_verdict_and_a_batch(executed: NotebookNode) -> None:
    """A job, its result, and sixty jobs of which some are not there in time; how many, the machine decides."""
    tables = shown(executed, "text/html")
    assert "pending" in tables[0] or "approved" in tables[0]
    assert "approved" in tables[1]
    (batch,) = [text for text in shown(executed, "text/plain") if text.startswith("<Batch")]
    counts = {word: int(count) for count, word in re.findall(r", (\d+) (\w+)", batch)}
    assert batch.startswith("<Batch: 60 jobs, ")
    assert sum(counts.values()) == 60
    assert counts["WaitTimeoutError"] >= 2
    assert counts.keys() <= {"approved", "provisional", "rejected", "error", "WaitTimeoutError"}


def test_its_progress_bar_is_a_widget(executed: NotebookNode) -> None:
    """Not text: a bar of the notebook's own, which has come to its end."""
    assert len(shown(executed, "application/vnd.jupyter.widget-view+json")) == 1
    models = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    bars = [model["state"] for model in models if model["model_name"] == "FloatProgressModel"]
    assert [(bar["value"], bar["max"], bar["bar_style"]) for bar in bars] == [(60.0, 60.0, "success")]


def test_it_shows_a_chart_and_the_pictures(executed: NotebookNode) -> None:
    """The chart is one picture, the job has another."""
    pictures = shown(executed, "image/png")
    assert len(pictures) == 2
    assert all(picture.startswith("iVBORw0KGgo") for picture in pictures)


def test_nothing_that_it_shows_has_ids_or_links(executed: NotebookNode) -> None:
    """It could be passed on with its outputs."""
    texts = " ".join(str(output) for output in outputs(executed)) + executed.metadata["report"]
    assert re.findall(r"user-\d|job-\d|X-Amz|Ada Example", texts) == []
    assert "<table" in executed.metadata["report"]
