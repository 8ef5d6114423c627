"""The proof that a checkpoint's tokenizer works in the server's environment.

A tokenizer that quietly drops newlines, or no longer knows the chat marks, costs tens of points and no error: that is
what InternLM2.5's own tokenizer code does under transformers 5. So it is loaded as the server loads it, by the server's
interpreter, and tried.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

from bundle.checkpoints._files import READ_THE_CODE, read_json_object, shown
from bundle.checkpoints._settings import language_configs, vocab_size
from bundle.checkpoints.chat_template import find_chat_template, unusable_template
from bundle.checkpoints.confined import run_confined
from bundle.checkpoints.tokenizer_probe.texts import LEFT_OUT
from bundle.errors import TokenizerError
from bundle.system.files import user_path

Conversation = Sequence[Mapping[str, Any]]
"""Messages, each with its role and its content."""

_PROBE: Final = Path(__file__).with_name("tokenizer_probe") / "__main__.py"
_EXPECTED: Final = {"transformers", "checked", "failed", "problems", "error", "missing"}
_ONLY_IN_5: Final = ("Tokenizer class TokenizersBackend", "'list' object has no attribute 'keys'")
"""What transformers 4 says of a tokenizer_config.json in which 5 has saved a class of its own, or further marks."""
_SAID_AS_IN_4: Final = (
    r"""'s/"TokenizersBackend"/"PreTrainedTokenizerFast"/; """
    r"""s/"extra_special_tokens": \[/"additional_special_tokens": [/'"""
)
_GENERATION: Final = re.compile(r"\d{1,4}(?=\.)")
_NEEDS: Final = re.compile(r"requires the (\S+) library but it was not found")
"""What transformers says of a package without which it cannot convert a tokenizer."""
_WITHOUT_EOS: Final = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers with no eos_token but the one that a file names."""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What the checkpoint's chat template and tokenizer make of a prompt, or the tokenizer alone of a plain one.

    Attributes:
        tokens: How many tokens; None if it cannot be rendered.
        with_special: How many where the tokenizer adds its own special tokens to the rendered text, as some servers let
            it do: usually as many.
        bare: How many a plain prompt has without the special tokens that the tokenizer begins a text with; None for a
            conversation.
        beginning: How the text begins.
        error: Why it cannot be rendered; None if it can.
        ending: How the text ends.
        appended: The text of the special tokens that the tokenizer puts at its end; usually none.
        dated: Whether the chat template makes another prompt of it on another day.
    """

    tokens: int | None
    with_special: int | None = None
    beginning: str = ""
    bare: int | None = None
    error: str | None = None
    ending: str = ""
    appended: str = ""
    dated: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerProof:
    """A tokenizer that passed.

    Attributes:
        transformers: The version of transformers it was loaded with.
        end_of_turn: The mark that the chat template writes after a reply; None if it writes none.
        stop_token_ids: The id of that mark, if none of the checkpoint's files lists it among those that end a reply:
            what an engine must be given so that replies end there. Usually empty.
        conversations: The prompts that were to be rendered, in their order.
        chosen_template: Of two files with different chat templates the one that is used; None if there are no two.
    """

    transformers: str
    end_of_turn: str | None = None
    stop_token_ids: tuple[int, ...] = ()
    conversations: tuple[RenderedPrompt, ...] = ()
    chosen_template: str | None = None

    @property
    def unlisted_end(self) -> str | None:
        """What a user should know of the ends of replies; None if all is well."""
        if self.end_of_turn is None or not self.stop_token_ids:
            return None
        return (
            f"the chat template ends a turn with {shown(self.end_of_turn, 60)} (id {self.stop_token_ids[0]}), which is "
            "not among the eos ids of generation_config.json (without that, of config.json) and the tokenizer"
        )


async def prove_tokenizer(
    directory: Path,
    *,
    python: str,
    trust_remote_code: bool,
    conversations: Sequence[Conversation] = (),
    template_arguments: Mapping[str, Any] | None = None,
    template: str | None = None,
    uses_template: bool = True,
    timeout: float = 120,  # noqa: ASYNC109 - it bounds a process, which must be ended before this returns
) -> TokenizerProof:
    """Prove that a tokenizer gives back what it is given, keeps its added tokens' ids, and fits the model.

    Raises TokenizerError if it does not, or cannot be checked; CheckpointError if ``config.json`` cannot be read.

    Args:
        python: The server's interpreter. It runs in a confined process, which ends with this coroutine.
        trust_remote_code: Whether the checkpoint's Python code may run.
        conversations: Prompts to be rendered with the checkpoint's chat template, and their tokens counted.
        template_arguments: What the template is given besides, such as ``enable_thinking``.
        template: The chat template that is used instead of the checkpoint's.
        uses_template: Whether prompts will be made with that template, which then must render them, whole.
        timeout: In seconds.
    """
    directory = user_path(directory).resolve()
    config = read_json_object(directory / "config.json")
    given = {
        "vocab_size": vocab_size(config),
        "trust_remote_code": trust_remote_code,
        "conversations": conversations,
        "template_arguments": template_arguments,
        "template": template,
    }
    result, tail = await _probed(directory, python, given, timeout)
    _judge(result, directory, config, python, trust_remote_code, tail)
    dated = uses_template and result.get("dated") is True
    rendered = tuple(
        RenderedPrompt(None, error=shown(one["error"], 400)) if "error" in one else RenderedPrompt(**one, dated=dated)
        for one in result.get("conversations", ())
    )
    if uses_template:
        fault = result.get("template")
        if fault is None and (template is not None or find_chat_template(directory) is not None):
            fault = next((one.error for one in rendered if one.error is not None), None)
        if fault is not None and template is not None:
            raise TokenizerError(
                f"The chat template given with --chat-template cannot be used: {shown(fault, 900)}.",
                remedy="Correct it, or leave it out.",
            )
        if fault is not None:
            raise unusable_template(directory, str(fault))
    mark, end = result.get("end_of_turn") or (None, None)
    listed = {*_eos_ids(directory, config), result.get("eos_token_id")}
    return TokenizerProof(
        transformers=shown(result["transformers"]),
        end_of_turn=None if mark is None else str(mark),
        stop_token_ids=() if end is None or end in listed else (int(end),),
        conversations=rendered,
        chosen_template=result.get("chosen") if uses_template and template is None else None,
    )


async def _probed(
    directory: Path, python: str, given: Mapping[str, object], limit_s: float
) -> tuple[Mapping[str, Any], list[str]]:
    """What the probe reports of a tokenizer, and the last lines of what it printed besides."""
    try:
        outcome = await run_confined([python, str(_PROBE), str(directory)], given, limit_s=limit_s)
    except TimeoutError:
        raise TokenizerError(
            f"The tokenizer in {shown(directory)} was not checked within {limit_s:g} seconds.",
            remedy="Its files may be damaged or malicious; if not, check the disk and the load of this machine.",
        ) from None
    except OSError as error:
        raise TokenizerError(
            f"{shown(python)}, which would check the tokenizer, cannot be run: {shown(error)}.",
            remedy="Check that the server's Python environment is installed.",
        ) from error
    if outcome.result is None or not outcome.result.keys() >= _EXPECTED:
        raise TokenizerError(
            f"The tokenizer in {shown(directory)} could not be checked by {shown(python)} ({outcome.ended}).",
            remedy="Check that the server's Python environment works; its last lines are below.",
            details=outcome.tail,
        )
    return outcome.result, outcome.tail


def _eos_ids(directory: Path, config: Mapping[str, Any]) -> set[object]:
    """The ids that end a reply by generation_config.json, for engines look into config.json only without one."""
    own = directory / "generation_config.json"
    ids: set[object] = set()
    for source in (read_json_object(own),) if own.is_file() else language_configs(config):
        eos = source.get("eos_token_id")
        ids.update(one for one in (eos if isinstance(eos, list) else [eos]) if isinstance(one, int))
    return ids


def eos_without_token(directory: Path) -> str | None:
    """What generation_config.json says of eos_token_id where the tokenizer has no eos_token for certain.

    None if it may have one, or a single id is said. Most classes of tokenizers have one that no file names.
    """
    own = directory / "generation_config.json"
    names = ("tokenizer_config.json", "special_tokens_map.json")
    files = [read_json_object(directory / name) for name in names if (directory / name).is_file()]
    if not own.is_file() or any(file.get("eos_token") for file in files):
        return None
    bare = any(file.get("tokenizer_class") in _WITHOUT_EOS for file in files)
    eos = read_json_object(own).get("eos_token_id")
    if isinstance(eos, int) or not (bare or any("eos_token" in file for file in files)):
        return None
    return shown(eos, 60) if eos is not None else "not there"


def _judge(
    result: Mapping[str, Any],
    directory: Path,
    config: Mapping[str, Any],
    python: str,
    trust_remote_code: bool,
    tail: list[str],
) -> None:
    """Raise an error unless the probe found nothing wrong."""
    version, error = result["transformers"], result["error"]
    problems = [shown(problem, 900) for problem in result["problems"]]
    where = shown(directory)
    if version is None:
        raise TokenizerError(
            f"The tokenizer in {where} could not be checked: transformers does not work in "
            f"{shown(python)} ({shown(error, 400)}).",
            remedy="Install it there.",
            details=tail,
        )
    installed = f"transformers {shown(version)}, which the server uses"
    if error is not None and not trust_remote_code and "trust_remote_code" in str(error):
        raise TokenizerError(
            f"The tokenizer in {where} is Python code, which needs --trust-remote-code ({installed}).",
            remedy=READ_THE_CODE,
        )
    if problems:
        remedy = _another_version(str(version), config)
        if any(LEFT_OUT in problem for problem in problems):
            remedy = (
                "The likely cause is a word among the special tokens: additional_special_tokens, extra_special_tokens "
                "or eos_token in tokenizer_config.json or special_tokens_map.json, or an added token with "
                '"special": true. Take it out there.'
            )
        more = int(result["failed"]) - 1
        raise TokenizerError(
            f"The tokenizer in {where} is broken under {installed}: {problems[0]}"
            + (f"; {more} more checks failed." if more else "."),
            remedy=f"Scores measured with it would be meaningless. {remedy}",
            details=[*problems[1:], *([shown(error, 600)] if error else [])],
        )
    if error is not None:
        raise TokenizerError(
            f"The tokenizer in {where} does not work under {installed}: {shown(error, 600)}.",
            remedy=_remedy(str(error), result, directory, python) or _another_version(str(version), config),
            details=tail,
        )


def _remedy(error: str, result: Mapping[str, Any], directory: Path, python: str) -> str | None:
    """What to do about a tokenizer that could not be loaded, where the error shows the cause."""
    if any(sign in error for sign in _ONLY_IN_5):
        file = quote(str(directory / "tokenizer_config.json"))
        return f"transformers 5 has written it. In the words of 4, which 5 reads too: `sed -i {_SAID_AS_IN_4} {file}`."
    install = f"`{shown(python)} -m pip install"
    if result["missing"] and any(directory.glob("*.model")):
        packages = " ".join(map(shown, result["missing"]))
        return f"A sentencepiece model cannot be read without {packages}: install it with {install} {packages}`."
    needed = _NEEDS.search(error)
    return needed and f"Install it: {install} {shown(needed[1].lower())}`."


def _another_version(installed: str, config: Mapping[str, Any]) -> str:
    """What to do about a tokenizer that fails with the installed version of transformers, for no known reason."""
    files = "its files may be damaged, or belong to another model: download them again."
    made_with = config.get("transformers_version")
    if made_with == installed:
        return f"config.json was written with that version, so {files}"
    made = _GENERATION.match(made_with) if isinstance(made_with, str) else None
    present = _GENERATION.match(installed)
    if made is not None and present is not None and made[0] != present[0]:
        name = shown(made_with, 20)
        return (
            f"config.json was written with transformers {name}: install one of that generation for the server "
            f"(pip install 'transformers>={name},<{int(made[0]) + 1}'). Else {files}"
        )
    if made is None and present is not None and int(present[0]) > 4:
        return (
            "Code written for transformers 4 may need that generation: install it for the server "
            f"(pip install 'transformers<5'). Else {files}"
        )
    wanted = "another transformers" if made is None else f"transformers {shown(made_with, 20)}, as in config.json,"
    return f"Install {wanted} for the server. Else {files}"
