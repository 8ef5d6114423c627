"""The same questions through EvalScope: its multiple-choice benchmark on local files, five examples, batches of 128."""

import sys
from pathlib import Path

from evalscope import TaskConfig, run_task  # type: ignore[import-not-found]


def main(base_url: str, data: Path, scratch: Path) -> None:
    """Ask everything."""
    subjects = sorted(path.name.removesuffix("_val.csv") for path in (data / "val").glob("*_val.csv"))
    flat = scratch / "data"  # it wants the splits side by side
    flat.mkdir()
    for split in ("dev", "val"):
        for path in (data / split).glob("*.csv"):
            (flat / path.name).symlink_to(path)
    run_task(
        TaskConfig(
            model="simulated",
            api_url=base_url,
            api_key="none",
            eval_type="openai_api",
            datasets=["general_mcq"],
            dataset_args={"general_mcq": {"local_path": str(flat), "subset_list": subjects, "few_shot_num": 5}},
            eval_batch_size=128,
            generation_config={"max_tokens": 2048, "temperature": 0.0},
            work_dir=str(scratch / "outputs"),
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
