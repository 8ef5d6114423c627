"""Which checkpoints a command line means."""

from pathlib import Path

import pytest

from bundle.errors import UsageError
from bundle.pipeline.checkpoint_folder import Model, _shape, checkpoints_in, models_of, several, short_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("checkpoint-1000", "checkpoint-500", "tmp-checkpoint-1500", ".cache", "checkpoint-2000.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def names(paths: list[Path] | None) -> list[str]:
    assert paths is not None
    return [path.name for path in paths]


def test_a_folder_stands_for_its_checkpoints_as_people_count(folder: Path) -> None:
    assert names(several([folder])) == ["checkpoint-500", "checkpoint-1000"]
    assert names(checkpoints_in(folder)) == ["checkpoint-500", "checkpoint-1000"]


def test_a_checkpoint_is_one_whatever_is_in_it(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert several([folder]) is None


def test_a_checkpoint_that_lacks_its_configuration_is_no_folder_of_checkpoints(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    assert several([folder]) is None


@pytest.mark.parametrize("name", ["nothing", "notes.txt", "logs"])
def test_what_holds_no_checkpoint_is_left_to_its_inspection(folder: Path, name: str) -> None:
    assert several([folder / name]) is None


def test_a_shells_order_is_put_right_and_a_chosen_one_is_kept(tmp_path: Path) -> None:
    for name in ("c-500", "c-1000", "c-2000"):
        (tmp_path / name).mkdir()
    at = tmp_path.joinpath
    assert names(several([at("c-1000"), at("c-500")])) == ["c-500", "c-1000"]
    assert names(several([at("c-500"), at("c-1000")])) == ["c-500", "c-1000"]
    assert names(several([at("c-2000"), at("c-1000")])) == ["c-2000", "c-1000"]


def test_a_word_that_is_no_directory_is_taken_for_a_mistyped_option(folder: Path) -> None:
    with pytest.raises(UsageError, match="limit is not a directory"):
        several([folder / "logs", Path("limit"), Path("3")])


def test_none_is_named_twice(folder: Path) -> None:
    with pytest.raises(UsageError, match="is named twice"):
        several([folder / "logs", folder / "." / "logs"])


def test_they_are_called_by_what_tells_them_apart() -> None:
    assert short_names([Path("/a/x-1"), Path("/a/x-2")]) == ["x-1", "x-2"]
    assert short_names([Path("/a/one/hf"), Path("/a/two/hf")]) == ["one/hf", "two/hf"]


def test_adapters_of_one_checkpoint_are_models_and_so_is_the_checkpoint_alone(tmp_path: Path) -> None:
    base, one, two = (tmp_path / name for name in ("base", "sft/step-2", "sft/step-1"))
    assert models_of([base], []) == [Model("base", base)]
    assert models_of([base], [None, one, two]) == [
        Model("base", base),
        Model("step-2", base, one),
        Model("step-1", base, two),
    ]
    assert [model.name for model in models_of([base], [tmp_path / "a/hf", tmp_path / "b/hf"])] == ["a/hf", "b/hf"]
    with pytest.raises(UsageError, match="--adapter is for a single checkpoint"):
        models_of([base, one], [two])


def test_every_change_of_a_file_is_a_change_of_shape(folder: Path) -> None:
    directory = folder / "checkpoint-500"
    seen = {_shape(directory)}
    (directory / "sub").mkdir()
    (directory / "sub" / "weights").write_bytes(b"1")
    seen.add(_shape(directory))
    (directory / "sub" / "weights").write_bytes(b"12")
    seen.add(_shape(directory))
    (directory / "sub" / "weights").unlink()
    (directory / "config.json").unlink()
    seen.add(_shape(directory))
    assert len(seen) == 4
