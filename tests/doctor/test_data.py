"""Whether questions can be had: from a hub and a ModelScope on loopback, and from this machine."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bundle
from bundle.doctor.inputs import check_data
from bundle.system.findings import Status
from tests.doctor.examined import Examined, bare_machine, examine
from tests.patience import PATIENCE_S
from tests.tasks.fake_hub import FakeHub
from tests.tasks.fake_modelscope import FakeModelScope
from tests.tasks.loopback import Loopback

SAMPLE = Path(bundle.__file__).parent / "tasks" / "sample" / "ceval"
UNREACHABLE = "http://127.0.0.1:9"  # the discard port; nothing listens there
REPO, ARCHIVE = "ceval/ceval-exam", "/datasets/opencompass/ceval-exam/resolve/master/ceval-exam.zip"

Look = Callable[..., Examined]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Run ``bundle doctor`` with these variables set."""

    def run(data: str, *arguments: object, **environment: str) -> Examined:
        return examine(
            *arguments, data=data, environment=bare_machine(tmp_path, **environment), alone="HF_ENDPOINT" in environment
        )

    return run


def test_the_hub_is_asked_for_the_data_set_and_nothing_is_fetched(look: Look) -> None:
    with FakeHub({REPO: {"README.md": b""}}) as hub:
        found = look("default", HF_ENDPOINT=hub.url)
        assert found.one("data", f"{REPO} @ {hub.commit(REPO)[:8]} at 127.0.0.1:")["status"] == "ok"
        assert [request for request in hub.requests if "datasets" in request] == [f"GET /api/datasets/{REPO}"]


def test_where_only_modelscope_can_be_reached_that_is_the_way_out(look: Look) -> None:
    with FakeModelScope({ARCHIVE: b"zip"}) as modelscope:
        found = look("default", HF_ENDPOINT=UNREACHABLE, MODELSCOPE_ENDPOINT=modelscope.url)
        assert modelscope.requests == [f"HEAD {ARCHIVE}"]
    first, second = found.of("data")
    assert (first["status"], second["status"]) == ("warning", "ok")
    assert "is not available on the Hub" in first["text"]
    assert "--data modelscope" in first["remedy"]
    assert "with --data modelscope: opencompass/ceval-exam" in second["text"]


def test_where_nothing_can_be_reached_both_reasons_and_all_ways_out_are_told(look: Look) -> None:
    found = look("default", HF_ENDPOINT=UNREACHABLE, MODELSCOPE_ENDPOINT=UNREACHABLE)
    (finding,) = found.of("data")
    assert finding["status"] == "failing"
    assert "127.0.0.1:9" in finding["text"]
    assert "modelscope" not in finding["text"]
    assert "cannot be reached" in finding["details"][0]
    assert "--data PATH" in finding["remedy"]


def test_a_hub_that_never_answers_holds_up_nothing(look: Look) -> None:
    with Loopback(lambda path: (200, {}, b"")) as hub:
        hub.silent = True
        began = time.monotonic()
        found = look("hub", "--time-limit", 2, HF_ENDPOINT=hub.url)
        assert time.monotonic() - began < PATIENCE_S
    (finding,) = found.of("data")
    assert finding["status"] in ("failing", "warning")
    assert found.one("network", "127.0.0.1 can be reached")


def test_a_hub_that_wants_a_login_says_so(look: Look) -> None:
    with FakeHub({}) as hub:
        hub.refusal = (401, "GatedRepo")
        (finding,) = look("hub", HF_ENDPOINT=hub.url).of("data")
    assert finding["status"] == "failing"
    assert "hf auth login" in finding["remedy"]


def test_a_directory_is_opened_and_every_question_in_it_read(look: Look) -> None:
    text = look(str(SAMPLE)).one("data", "questions of ceval, val split")["text"]
    assert f"directory {SAMPLE}: 104 questions" in text


def test_a_source_can_be_named_for_one_benchmark() -> None:
    (finding,) = check_data(f"ceval={SAMPLE}", limit_s=5)
    assert "104 questions of ceval" in finding.text
    (finding,) = check_data(f"cmmlu={SAMPLE}", limit_s=5)
    assert finding.status is Status.FAILING


def test_a_directory_in_no_benchmarks_layout_fails_and_says_what_is_missing(tmp_path: Path) -> None:
    (finding,) = check_data(str(tmp_path), limit_s=5)
    assert finding.status is Status.FAILING
    assert "is missing from directory" in finding.text
    assert finding.remedy


def test_a_misspelt_source_fails_with_what_there_is() -> None:
    (finding,) = check_data("modelscop", limit_s=5)
    assert "it is not hub, modelscope or sample" in finding.text
