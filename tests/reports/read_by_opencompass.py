"""Read working directories with OpenCompass's own code; run by the interpreter of its environment.

    python -m tests.reports.read_by_opencompass MODEL SUBJECT,… DIRECTORY…

It evaluates these subjects' predictions anew and summarizes the results that are there. It prints, as JSON, for every
directory the new results by subject, None where there is none, and the text of the two files of the summary.
"""

import contextlib
import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_SAMPLE = Path(__file__).parents[2] / "bundle" / "tasks" / "sample" / "ceval"
_CONFIG = """
from mmengine.config import read_base

with read_base():
    from opencompass.configs.datasets.ceval.ceval_gen_5f30c7 import ceval_datasets
    from opencompass.configs.summarizers.groups.ceval import ceval_summary_groups

datasets = ceval_datasets
for one in datasets:
    one["path"] = {data!r}
models = [dict(type="opencompass.models.OpenAISDK", abbr={model!r}, path="none")]
"""


def _config(scratch: Path, model: str) -> Any:
    """As OpenCompass's command line makes it."""
    data = scratch / "data"
    shutil.copytree(_SAMPLE, data)
    (data / "test").mkdir()
    for path in (data / "val").iterdir():  # its loader wants the file, and nothing is read of it
        shutil.copy(path, data / "test" / path.name.replace("_val", "_test"))
    path = scratch / "config.py"
    path.write_text(_CONFIG.format(data=str(data), model=model), encoding="utf-8")
    read: Any = importlib.import_module("mmengine.config").Config.fromfile
    read(path, format_python_code=False).dump(path.with_suffix(".dumped.py"))
    return read(path.with_suffix(".dumped.py"), format_python_code=False)


def _evaluate(config: Any, directory: Path, scratch: Path, model: str, subjects: list[str]) -> dict[str, Any]:
    tasks: Any = importlib.import_module("opencompass.tasks")
    work = scratch / "work"
    shutil.copytree(directory / "predictions", work / "predictions")
    results = {}
    for subject in subjects:
        (dataset,) = (one for one in config["datasets"] if one["name"] == subject)
        with contextlib.suppress(KeyError):  # how it fails where a prediction is missing
            task = {"models": config["models"], "datasets": [[dataset]], "work_dir": str(work)}
            tasks.OpenICLEvalTask(type(config)(task)).run()
        path = work / "results" / model / f"{dataset['abbr']}.json"
        results[subject] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return results


def _summarize(config: Any, directory: Path) -> dict[str, str]:
    summarizer: Any = importlib.import_module("opencompass.summarizers.default").DefaultSummarizer
    config["work_dir"] = str(directory)
    summarizer(config, summary_groups=config["ceval_summary_groups"]).summarize(time_str="anew")
    paths = {kind: directory / "summary" / f"summary_anew.{kind}" for kind in ("txt", "csv")}
    return {kind: path.read_text(encoding="utf-8") for kind, path in paths.items()}


def _read(directory: Path, model: str, subjects: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        results = _evaluate(_config(Path(scratch), model), directory, Path(scratch), model, subjects)
        # Evaluating takes parts out of the configuration.
        return {"results": results, "summary": _summarize(_config(Path(scratch) / "again", model), directory)}


def _main(model: str, subjects: list[str], directories: list[Path]) -> None:
    print(json.dumps([_read(directory, model, subjects) for directory in directories]))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2].split(","), [Path(argument) for argument in sys.argv[3:]])
