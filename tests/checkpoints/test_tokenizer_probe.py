"""What the probe finds out about a tokenizer, in the environment these tests run in."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bundle.checkpoints import tokenizer_probe
from bundle.checkpoints.tokenizer_probe.probe import installed
from bundle.checkpoints.tokenizer_probe.texts import TEXTS, difference
from tests.checkpoints.checkpoints import write_json
from tests.checkpoints.tokenizers import (
    BPE_SIZE,
    CHAT_TEMPLATE,
    MARKS,
    Prober,
    added_token,
    write_bpe,
    write_lossy,
    write_sentencepiece,
)
from tests.late import late

late("transformers")


def problems(report: dict[str, Any]) -> str:
    """All that failed, after a look that the report is one of failure."""
    assert report["error"] is None
    assert report["failed"] >= len(report["problems"]) > 0
    return "\n".join(report["problems"])


def test_it_runs_in_an_interpreter_that_has_nothing_installed(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    write_json(given, {"vocab_size": None, "trust_remote_code": False})
    program = Path(tokenizer_probe.__path__[0], "__main__.py")
    command = [sys.executable, "-I", "-S", str(program), str(tmp_path), str(given)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(printed.partition("\x1eresult ")[2])
    assert report["error"] == (
        "transformers could not be imported: ModuleNotFoundError: No module named 'transformers'"
    )


def test_a_byte_level_bpe_tokenizer_that_is_well_passes(prober: Prober, tmp_path: Path) -> None:
    report = prober.probe(write_bpe(tmp_path / "bpe"))
    assert (report["error"], report["problems"], report["failed"]) == (None, [], 0)
    assert report["checked"] >= len(TEXTS) + len(MARKS) + 3
    assert report["transformers"][0].isdigit()


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_a_sentencepiece_tokenizer_that_is_well_passes_with_and_without_a_dummy_prefix(
    prober: Prober, tmp_path: Path, dummy_prefix: bool
) -> None:
    pytest.importorskip("sentencepiece", reason="a sentencepiece model is trained for this test")
    if not installed("google.protobuf"):
        pytest.skip("transformers reads sentencepiece models with protobuf, which is not installed")
    directory = write_sentencepiece(tmp_path / "llama", dummy_prefix=dummy_prefix)
    vocab_size = json.loads((directory / "config.json").read_text())["vocab_size"]
    report = prober.probe(directory, vocab_size=vocab_size)
    assert (report["error"], report["problems"], report["failed"]) == (None, [], 0)
    assert prober.probe(directory, vocab_size=vocab_size - 1)["failed"] > 0


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        (" ", "spaces are lost"),
        ("\n", "newlines are lost"),
        (" \n", "spaces and newlines are"),
        ("答", "comes back as"),
    ],
)
def test_a_tokenizer_that_quietly_loses_characters_is_found_out(
    prober: Prober, tmp_path: Path, lost: str, complaint: str
) -> None:
    report = prober.probe(write_lossy(tmp_path / "lossy", lost), trust_remote_code=True)
    assert complaint in problems(report)


def test_code_does_not_run_without_leave(prober: Prober, tmp_path: Path) -> None:
    directory = write_lossy(tmp_path / "lossy", "\n")
    proof_of_running = tmp_path / "ran"
    source = (directory / "tokenization_lossy.py").read_text()
    (directory / "tokenization_lossy.py").write_text(f"open({str(proof_of_running)!r}, 'w')\n{source}")
    report = prober.probe(directory)
    assert "trust_remote_code" in report["error"]
    assert not proof_of_running.exists()


def test_added_tokens_that_get_other_ids_are_found_out(prober: Prober, tmp_path: Path) -> None:
    """``added_tokens_decoder`` puts the mark at an id that this vocabulary gives to something else."""
    directory = write_bpe(tmp_path / "bpe", added_tokens_decoder={"300": added_token("<|im_start|>")})
    assert "added token 300 ('<|im_start|>') has id 1 in the loaded tokenizer" in problems(prober.probe(directory))


def test_added_tokens_declared_but_not_known_to_the_vocabulary_are_found_out(prober: Prober, tmp_path: Path) -> None:
    directory = write_bpe(tmp_path / "bpe", added_tokens_decoder={"399": added_token("<|plugin|>")})
    assert "added token 399 ('<|plugin|>') has id" in problems(prober.probe(directory))


def test_ids_that_the_model_has_no_place_for_are_found_out(prober: Prober, tmp_path: Path) -> None:
    directory = write_bpe(tmp_path / "bpe")
    report = prober.probe(directory, vocab_size=BPE_SIZE - 100)
    assert f"but the model's vocab_size is {BPE_SIZE - 100}" in problems(report)


def test_an_unused_id_beyond_the_model_is_found_out_as_well(prober: Prober, tmp_path: Path) -> None:
    """A question in the benchmark may use it, and the server's GPU kernels would read past their table."""
    directory = write_bpe(tmp_path / "bpe")
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["未用"] = BPE_SIZE
    write_json(directory / "tokenizer.json", content)
    expected = f"the vocabulary has token id {BPE_SIZE}, but the model's vocab_size is {BPE_SIZE}"
    assert problems(prober.probe(directory)) == expected


@pytest.mark.parametrize(
    ("generation", "told"),
    [
        (
            {"eos_token_id": BPE_SIZE + 7},
            f"{BPE_SIZE + 7} of the model ends a reply, but the tokenizer has no such token",
        ),
        ({"eos_token_id": [1, 100]}, "eos_token_id 100 of the model ends a reply, but the tokenizer has '"),
        ({"eos_token_id": [1, None]}, None),
        ({"temperature": 0.7}, None),  # then engines do not look into config.json
    ],
)
def test_the_end_of_a_reply_must_be_a_mark_of_the_tokenizer(
    prober: Prober, tmp_path: Path, generation: dict[str, Any], told: str | None
) -> None:
    """Else it is another model's, or generation_config.json is."""
    directory = write_bpe(tmp_path / "bpe")
    write_json(directory / "config.json", {"eos_token_id": 100})
    write_json(directory / "generation_config.json", generation)
    report = prober.probe(directory)
    assert report["problems"] == [] if told is None else told in problems(report)


def test_an_unknown_size_of_the_model_is_no_problem(prober: Prober, tmp_path: Path) -> None:
    assert prober.probe(write_bpe(tmp_path / "bpe"), vocab_size=None)["failed"] == 0


def test_a_mark_that_is_split_in_a_conversation_is_found_out(prober: Prober, tmp_path: Path) -> None:
    """A mark that is only found as a word of its own is no mark in a conversation."""
    directory = write_bpe(tmp_path / "bpe", chat_template=CHAT_TEMPLATE.replace("<|im_start|>", "x<|im_start|>y"))
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    for entry in content["added_tokens"]:
        entry["single_word"] = True
    write_json(directory / "tokenizer.json", content)
    assert "'<|im_start|>' is in a conversation 4 times, but its id 1 0" in problems(prober.probe(directory))


def test_a_letter_that_servers_would_leave_out_of_replies_is_found_out(prober: Prober, tmp_path: Path) -> None:
    assert "A. 150" in problems(prober.probe(write_bpe(tmp_path / "listed", additional_special_tokens=["A"])))
    assert "A. 150" in problems(prober.probe(write_bpe(tmp_path / "end", eos_token="A")))


def test_a_word_among_the_special_tokens_is_named_as_the_cause(prober: Prober, tmp_path: Path) -> None:
    report = prober.probe(write_bpe(tmp_path / "bpe", additional_special_tokens=["题"]), vocab_size=None)
    assert "with '题' as a special token, which servers leave out of replies" in problems(report)


def test_a_tokenizer_class_that_does_not_do_what_tokenizer_json_says_is_found_out(
    prober: Prober, tmp_path: Path
) -> None:
    """transformers 5 takes no more than the vocabulary for this class; 4, and servers with it, change the text."""
    directory = write_bpe(tmp_path / "bpe", tokenizer_class="Qwen2Tokenizer")
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "下列"}, "content": "以下"}
    write_json(directory / "tokenizer.json", content)
    report = prober.probe(directory)
    assert ("comes back as" if report["transformers"].startswith("4.") else "others by tokenizer.json") in problems(
        report
    )


def test_a_chat_template_that_drops_a_message_is_found_out(prober: Prober, tmp_path: Path) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template="{{ messages[-1]['content'] }}<|im_end|>")
    assert "it leaves out text of a message: '“时间就是金钱”" in prober.probe(directory)["template"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (CHAT_TEMPLATE.replace("in messages", "in messages | reverse"), "it changes the order of messages"),
        (
            CHAT_TEMPLATE.partition("{% if add_generation_prompt")[0],
            r"a prompt does not end with what a reply begins with, '<|im_start|>assistant\n'",
        ),
        ("{% for m in messages %}{{ m.content ", "line 1: unexpected end of template"),
        ("x\n{% endfor %}", "line 2: Encountered unknown tag 'endfor'"),
        ("hello", "it leaves out text of a message"),
        ("{{ raise_exception('only one turn') }}", "TemplateError: only one turn"),
        ("{{ " + "(" * 5000 + "messages" + ")" * 5000 + " }}", "RecursionError"),
    ],
)
def test_a_chat_template_that_cannot_be_rendered_is_an_error(
    prober: Prober, tmp_path: Path, template: str, told: str
) -> None:
    report = prober.probe(write_bpe(tmp_path / "bpe", chat_template=template))
    assert report["template"].startswith(told)
    assert (report["error"], report["failed"]) == (None, 0)


def with_system(text: str) -> str:
    """A chat template that begins a prompt with a text of its own."""
    return f"<|im_start|>system\n{text}<|im_end|>\n{CHAT_TEMPLATE}"


@pytest.mark.parametrize(
    ("template", "dated"),
    [
        (CHAT_TEMPLATE, False),
        (with_system("Today Date: {{ strftime_now('%d %b %Y') }}"), True),
        (with_system("Date: {{ date_string or strftime_now('%d %b %Y') }}"), False),  # the run gives it
        (with_system("{% if strftime_now('%w') in '06' %}weekend{% endif %}"), True),
        (with_system("{% set now = strftime_now('%H:%M') %}"), False),  # nothing of it is in the prompt
    ],
)
def test_a_chat_template_whose_prompts_depend_on_the_day_is_found_out(
    prober: Prober, tmp_path: Path, template: str, dated: bool
) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template=template)
    report = prober.probe(directory, template_arguments={"date_string": "26 Jul 2024"})
    assert (report["dated"], report["template"]) == (dated, None)


@pytest.mark.parametrize(
    "changing",
    [
        "It is {{ strftime_now('%H:%M') }}.",
        "{{ strftime_now('%S') }}",
        "Good {{ 'morning' if strftime_now('%H') | int < 12 else 'day' }}!",
        "Be {{ ['kind', 'brief'] | random }}.",
    ],
)
def test_a_chat_template_whose_prompts_change_within_a_day_cannot_be_used(
    prober: Prober, tmp_path: Path, changing: str
) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template=with_system(changing))
    assert prober.probe(directory)["template"].startswith("a prompt changes from one moment to the next: '")


def test_a_template_that_is_chosen_is_used_instead_of_the_checkpoints(prober: Prober, tmp_path: Path) -> None:
    directory, messages = write_bpe(tmp_path / "bpe"), [{"role": "user", "content": "1+1=?"}]
    own, chosen = (
        prober.probe(directory, conversations=[messages], template=template)
        for template in (None, with_system("Today Date: {{ strftime_now('%d %b %Y') }}"))
    )
    assert (own["dated"], chosen["dated"]) == (False, True)
    assert chosen["conversations"][0]["tokens"] > own["conversations"][0]["tokens"]
    assert chosen["conversations"][0]["beginning"].startswith("<|im_start|>system\nToday Date: ")


@pytest.mark.parametrize(("other", "chosen"), [("", None), ("\n", None), ("{# edited #}", "chat_template.jinja")])
def test_of_two_files_with_different_chat_templates_the_one_used_is_named(
    prober: Prober, tmp_path: Path, other: str, chosen: str | None
) -> None:
    directory = write_bpe(tmp_path / "bpe")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE + other)
    assert prober.probe(directory)["chosen"] == chosen


@pytest.mark.parametrize("cut", ["content[:20]", "content | truncate(20)", "content | replace('x', '')"])
def test_text_that_a_chat_template_cuts_off_or_changes_is_missed(prober: Prober, tmp_path: Path, cut: str) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template=CHAT_TEMPLATE.replace("['content']", f".{cut}"))
    short, long = [[{"role": "user", "content": "x" * length}] for length in (0, 30)]
    whole, less = prober.probe(directory, conversations=[short, long])["conversations"]
    assert "error" not in whole
    assert less["error"].startswith("it leaves out text of a message: 'xxx")


def test_a_base_model_without_a_chat_template_passes(prober: Prober, tmp_path: Path) -> None:
    assert prober.probe(write_bpe(tmp_path / "bpe", chat_template=None))["failed"] == 0


def test_a_tokenizer_that_cannot_be_loaded_is_an_error(prober: Prober, tmp_path: Path) -> None:
    directory = write_bpe(tmp_path / "bpe")
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    assert prober.probe(directory)["error"].startswith("loading it failed: ")


@pytest.mark.parametrize(
    ("text", "got"), [("答案", "答案"), ("答案", " 答案"), (" 答案", "答案"), ("  答案", " 答案"), ("\n答", " \n答")]
)
def test_one_space_at_the_start_may_come_or_go(text: str, got: str) -> None:
    assert difference(text, got) is None


@pytest.mark.parametrize(
    ("text", "got", "complaint"),
    [
        ("  答", "答", "spaces are lost"),
        ("答", "  答", "spaces are added"),
        ("答 ", "答", "spaces are lost: '答 ' comes back as '答'"),
        ("\n答", "答", "newlines are lost"),
        ("A. 甲\n答案: ", "A.甲答案:", "spaces and newlines are changed"),
        ("答 案", "答\n案", "spaces and newlines are changed"),
        ("会计，考试", "会计,考试", "'会计，考试' comes back as '会计,考试'"),
        ("会计", "", "'会计' comes back as ''"),
    ],
)
def test_any_other_change_is_named(text: str, got: str, complaint: str) -> None:
    assert complaint in str(difference(text, got))


# The end of a turn


@pytest.mark.parametrize(
    ("template", "mark"),
    [
        (CHAT_TEMPLATE, "<|im_end|>"),
        ("{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}<|im_start|>", "<|im_start|>"),
        ("{% for m in messages %}{{ m['content'] }}\n<|endoftext|><|im_end|>{% endfor %}", "<|endoftext|>"),
        ("{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", None),
        (None, None),
    ],
)
def test_the_mark_that_a_template_writes_after_a_reply_is_found(
    prober: Prober, tmp_path: Path, template: str | None, mark: str | None
) -> None:
    report = prober.probe(write_bpe(tmp_path / "bpe", chat_template=template))

    assert (report["end_of_turn"] or [None])[0] == mark


# Conversations of a run

TURNS = [
    {"role": "system", "content": "你是一个助手"},
    {"role": "user", "content": "下列说法正确的是____。"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "1+1=?"},
]


def test_a_conversation_is_counted_as_the_chat_template_renders_it(prober: Prober, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    directory = write_bpe(tmp_path / "bpe")
    short, long = prober.probe(directory, conversations=[TURNS[1:2], TURNS])["conversations"]

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ids = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert (long["tokens"], long["with_special"]) == (len(ids), len(ids))
    assert short["tokens"] < long["tokens"]
    assert long["beginning"].startswith("<|im_start|>system\n你是一个助手<|im_end|>\n<|im_start|>user\n")
    assert long["ending"].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(("template", "more"), [(CHAT_TEMPLATE, 1), ("{{ bos_token }}" + CHAT_TEMPLATE, 0)])
def test_a_bos_token_that_the_tokenizer_adds_is_counted_apart_and_never_twice(
    prober: Prober, tmp_path: Path, template: str, more: int
) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template=template, bos_token="<|endoftext|>")
    content = json.loads((directory / "tokenizer.json").read_text())
    bos = {"id": "<|endoftext|>", "type_id": 0}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": bos}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    write_json(directory / "tokenizer.json", content)
    text = [{"role": "text", "content": "1+1="}]
    counted, plain = prober.probe(directory, conversations=[TURNS, text])["conversations"]
    assert counted["with_special"] == counted["tokens"] + more
    assert plain["tokens"] == plain["with_special"] == plain["bare"] + 1
    assert plain["beginning"] == plain["ending"] == "1+1="
    assert counted["appended"] == plain["appended"] == ""


@pytest.mark.parametrize("begins", [True, False])
def test_an_end_that_the_tokenizer_puts_after_a_text_is_told_apart(
    prober: Prober, tmp_path: Path, *, begins: bool
) -> None:
    directory = write_bpe(tmp_path / "bpe")
    content = json.loads((directory / "tokenizer.json").read_text())
    mark = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*[mark] * begins, {"Sequence": {"id": "A", "type_id": 0}}, mark],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    write_json(directory / "tokenizer.json", content)
    text = [{"role": "text", "content": "1+1="}]
    for counted in prober.probe(directory, conversations=[TURNS, text])["conversations"]:
        assert counted["appended"] == "<|endoftext|>"


def test_a_conversation_that_a_template_refuses_is_no_fault_of_the_tokenizer(prober: Prober, tmp_path: Path) -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    report = prober.probe(write_bpe(tmp_path / "bpe", chat_template=refusing), conversations=[TURNS, TURNS[1:]])
    assert (report["error"], report["failed"]) == (None, 0)
    assert "no system" in report["conversations"][0]["error"]
    assert report["conversations"][1]["tokens"] > 0


def test_a_conversation_is_rendered_with_the_arguments_of_the_request(prober: Prober, tmp_path: Path) -> None:
    template = CHAT_TEMPLATE + "{% if enable_thinking is false %}<|im_start|>{% endif %}"
    directory = write_bpe(tmp_path / "bpe", chat_template=template)
    (thinking,) = prober.probe(directory, conversations=[TURNS])["conversations"]
    arguments = {"enable_thinking": False}
    (brief,) = prober.probe(directory, conversations=[TURNS], template_arguments=arguments)["conversations"]
    assert brief["tokens"] == thinking["tokens"] + 1


def test_a_template_in_a_file_of_the_processors_is_used(prober: Prober, tmp_path: Path) -> None:
    directory = write_bpe(tmp_path / "bpe", chat_template=None)
    write_json(directory / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    (counted,) = prober.probe(directory, conversations=[TURNS])["conversations"]
    assert counted["beginning"].startswith("<|im_start|>system")
