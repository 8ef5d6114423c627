"""Which versions are wanted, as the package's own metadata says, and whether they are there."""

import pytest
from packaging.requirements import Requirement

from bundle.serving.environments import Environment, problems, required


def test_what_is_required_is_what_pyproject_says() -> None:
    assert "openai" in {requirement.name for requirement in required()}
    assert {"transformers", "torch"} <= {requirement.name for requirement in required("cpu")}
    (transformers,) = [requirement for requirement in required("gpu") if requirement.name == "transformers"]
    assert "4.57.6" in transformers.specifier
    assert "5.0.0" not in transformers.specifier, "under which InternLM2.5's tokenizer breaks"
    assert "lmdeploy" not in {requirement.name for requirement in (*required(), *required("cpu"))}


@pytest.mark.parametrize(
    ("wanted", "installed", "expected"),
    [
        ("torch>=2.6,<3", {"torch": "2.13.0+cpu"}, []),
        ("torch>=2.6,<3", {}, ["torch>=2.6,<3 is not installed"]),
        ("torch<=2.8.0", {"torch": "2.9"}, ["torch 2.9 is installed, but torch<=2.8.0 is required"]),
        ("torch>=2.6", {"torch": "2.7.0rc1"}, []),
        ("huggingface_hub>=1", {"huggingface-hub": "1.2"}, []),
        ("torch>=2.6", {"torch": "my-own-build"}, []),
    ],
)
def test_a_requirement_is_met_or_it_is_said_why_not(
    wanted: str, installed: dict[str, str], expected: list[str]
) -> None:
    assert problems([Requirement(wanted)], Environment(installed)) == expected


def test_what_an_extra_of_a_package_asks_for_counts_as_well() -> None:
    requires = {"transformers": ['uvicorn ; extra == "serving"', 'pytest ; extra == "testing"', "numpy"]}
    there = Environment({"transformers": "5.23.0"}, requires)
    assert problems([Requirement("transformers[serving]>=5")], there) == ["uvicorn is not installed"]
