"""Read a results file with the LM Evaluation Harness's own code; run by the interpreter of its environment.

    python -m tests.reports.read_by_lm_eval RESULTS SAMPLES…

It prints, as JSON, the tables its command line shows, and what it takes the samples' names for.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def _main(results: Path, samples: list[Path]) -> None:
    utils: Any = importlib.import_module("lm_eval.utils")
    content = json.loads(results.read_text(encoding="utf-8"))
    tables = {kind: utils.make_table(content, kind) for kind in ("results", "groups") if kind in content}
    files = [f"{path.parent.name}/{path.name}" for path in (results, *samples)]
    print(
        json.dumps(
            {
                "tables": tables,
                "results_files": utils.get_results_filenames(files),
                "tasks": [
                    utils.get_file_task_name(Path(one).name) for one in utils.get_sample_results_filenames(files)
                ],
                "times": sorted({utils.get_file_datetime(one).removesuffix(".json") for one in files}),
            }
        )
    )


if __name__ == "__main__":
    _main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
