"""The supervisor starts a server, knows when it is ready, says why it is not, and notices its death."""

import asyncio
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from bundle.errors import ServerError
from bundle.serving import supervisor
from bundle.serving.health import Readiness
from bundle.serving.vital import VitalProcesses
from bundle.system import guarded, guardian
from tests.patience import PATIENCE_S, eventually, fastest_of
from tests.serving.stand_in import Stage, guardians_of


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    assert not stage.kill_what_is_left()


async def error_of(stage: Stage, *options: str, start_timeout: float = PATIENCE_S) -> ServerError:
    """The error that entering raises; by then nothing of the server is left."""
    with pytest.raises(ServerError) as raised:
        async with stage.supervisor(*options, start_timeout=start_timeout):
            pytest.fail("it was ready")
    assert not stage.processes()
    return raised.value


async def test_a_server_that_is_ready_tells_how_to_reach_it(stage: Stage) -> None:
    async with stage.supervisor() as server:
        assert server.spec.engine == "stand-in"
        assert server.spec.served_name == stage.served_name
        assert server.base_url == f"http://127.0.0.1:{stage.ports[0]}/v1"
        assert server.pid in stage.processes()
        assert 0 < server.seconds_to_ready < PATIENCE_S
        assert server.api_key == stage.key
        assert server.api_key not in repr(server)
    assert not stage.processes()
    assert not guardians_of(os.getpid())


def asked_twice(stage: Stage, path: str) -> bool:
    return stage.read("journal").split().count(path) >= 2


async def test_ready_means_healthy_then_listed_then_a_token_and_not_before(stage: Stage) -> None:
    gates = ("--healthy-when", "--listed-when", "--generates-when")
    running = stage.supervisor(
        *(word for gate in gates for word in (gate, stage.file(gate))), "--journal", stage.file("journal")
    )
    entering = asyncio.ensure_future(running.__aenter__())
    asked = []
    for gate, path in zip(gates, ("/health", "/v1/models", "/v1/chat/completions"), strict=True):
        # It keeps asking for this, and for nothing that comes later.
        await eventually(partial(asked_twice, stage, path))
        asked.append(path)
        assert set(stage.read("journal").split()) == set(asked)
        assert not entering.done()
        stage.write(gate)
    await entering
    assert list(dict.fromkeys(stage.read("journal").split())) == asked
    await running.stop()


async def test_the_key_is_in_no_argument_list_and_not_in_the_log_and_the_log_is_ours_alone(stage: Stage) -> None:
    async with stage.supervisor("--worker", "child", "--print", "hello") as server:
        arguments = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        assert sys.executable in {words[0] for words in arguments if words}
        assert not [words for words in arguments if server.api_key in " ".join(words)]
    assert stage.log.read_text().startswith("hello\n")
    assert server.api_key not in stage.log.read_text()
    assert server.api_key not in "".join(stage.said)
    assert stat.S_IMODE(stage.log.stat().st_mode) == 0o600


async def test_a_key_that_a_server_prints_is_not_shown(stage: Stage) -> None:
    stage.command = ["sh", "-c", 'echo "the key is $STAND_IN_KEY"; exit 3', "sh"]
    error = await error_of(stage)
    assert error.details == ("the key is ***",)
    assert stage.key not in str(error)


def test_keys_for_other_services_do_not_reach_the_server(stage: Stage) -> None:
    ours = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "TOKENIZERS_PARALLELISM": "false",
        "OPENAI_API_KEY": "sk",
        "INTERNLM_API_KEY": "sk",
        "HF_TOKEN": "hf",
        "AWS_SECRET_ACCESS_KEY": "aws",
        "DB_PASSWORD": "pw",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_JOB_ID": "1",
    }
    assert stage.prepared().environment_beside(ours, "k", stage.directory) == {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ADDRESS": "local",
        "PYTHONSAFEPATH": "1",
        "STAND_IN": "yes",
        "STAND_IN_KEY": "k",
    }


async def test_while_it_starts_it_says_what_the_log_says(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SAY_AT_MOST_EVERY_SECONDS", 0.0)
    doing = "doing loading weights 10 %\rdoing loading weights 40 %\nnothing to be said of this\n"
    gate = stage.file("gate")
    entering = asyncio.ensure_future(stage.supervisor("--print", doing, "--start-when", gate).__aenter__())
    await eventually(lambda: any("loading weights 40 %" in line for line in stage.said))
    count = len(stage.said)
    await asyncio.sleep(3 * supervisor._LOOK_AT_LOG_SECONDS)
    assert len(stage.said) == count  # Nothing has changed, so nothing is said again so soon.
    assert stage.said[-1] == "starting stand-in: loading weights 40 %"
    entering.cancel()
    await asyncio.wait({entering})


NOT_READY = {
    ("--hang",): "the server to answer, got: connection refused.",
    ("--healthy-when", "/nowhere"): "the server to answer, got: HTTP 503: {}.",
    ("--listed", "[]"): "the server to list the model 'models/the one', got: it lists no model.",
    ("--listed", '["a", "b"]'): "the server to list the model 'models/the one', got: it lists 'a', 'b'.",
    ("--generate", "500"): "a first token from the model, got: HTTP 500: {'error': 'no chat template'}.",
    ("--generate", "hang"): "a first token from the model, got: no answer yet.",
    ("--generate", "error"): "a first token from the model, got: HTTP 200: {'choices': [{'message': ",
}


class TestNotReady:
    async def test_when_the_time_is_over_it_says_what_was_waited_for_and_what_was_seen(self, tmp_path: Path) -> None:
        async def error_in_the_end(stage: Stage, options: tuple[str, ...], expected: str) -> ServerError:
            error = await error_of(stage, *options, start_timeout=4.0)
            if expected in error.message:
                return error
            # On a busy machine four seconds may not be enough to get as far as it can.
            return await error_of(stage, *options, start_timeout=16.0)

        # Side by side, so that they take no longer than one.
        stages = [Stage(tmp_path / str(number)) for number in range(len(NOT_READY))]
        errors = await asyncio.gather(
            *(error_in_the_end(stage, *case) for stage, case in zip(stages, NOT_READY.items(), strict=True))
        )
        for error, expected in zip(errors, NOT_READY.values(), strict=True):
            assert re.match(r"The stand-in server was not ready after (4|16) s\. Expected ", error.message)
            assert expected in error.message
            assert "--start-timeout" in (error.remedy or "")
            assert error.details[-1] == "starting"
            assert error.exit_code == 3

    async def test_a_server_that_does_not_take_the_key_is_given_up_at_once(self, stage: Stage) -> None:
        error = await error_of(stage, "--other-key", "--journal", stage.file("journal"))
        assert "rejects the key its server was started with (HTTP 401)" in error.message
        assert stage.read("journal").split().count("/v1/models") == 1

    async def test_a_server_that_is_up_but_stays_wrong_is_given_up_before_the_time_is_over(self, stage: Stage) -> None:
        async with stage.supervisor() as server:
            root = server.base_url.removesuffix("/v1")
            readiness = Readiness(root, server.api_key, "models/another", limit=PATIENCE_S, patience=0.3)
            with pytest.raises(ServerError, match="lists 'models/the one'"):
                await asyncio.wait_for(readiness.wait(), PATIENCE_S)

    async def test_a_proxy_for_the_outside_does_not_stand_between_us(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        async with stage.supervisor() as server:
            assert server.pid


class TestEndsBeforeItIsReady:
    @pytest.mark.parametrize(
        ("printed", "cause", "shown"),
        [
            ("RuntimeError: No CUDA GPUs are available", "it sees no NVIDIA GPU.", 1),
            ("ModuleNotFoundError: No module named 'einops'", "the Python module einops is not installed.", 1),
            (
                "nothing known\nValueError: the moon is in the wrong phase",
                "its last output was 'ValueError: the moon is",
                3,
            ),
        ],
    )
    async def test_the_log_is_read_for_the_cause(self, stage: Stage, printed: str, cause: str, shown: int) -> None:
        """Of a known one the line is shown that says it, otherwise the end of the log."""
        error = await error_of(stage, "--exit", "1", "--print", f"\x1b[31mTraceback\x1b[0m\n{printed}")
        assert error.message.startswith(f"The stand-in server ended before it was ready (exit code 1): {cause}")
        assert str(stage.log) in (error.remedy or "")
        assert error.details == ("Traceback", *printed.splitlines())[-shown:]

    async def test_only_the_last_lines_are_shown(self, stage: Stage) -> None:
        error = await error_of(stage, "--exit", "0", "--print", "\n".join(f"line {n}" for n in range(100)))
        assert error.details == tuple(f"line {n}" for n in range(85, 100))

    async def test_what_an_earlier_server_wrote_into_the_log_is_not_taken_for_its_own(self, stage: Stage) -> None:
        stage.log.parent.mkdir()
        stage.log.write_text("RuntimeError: No CUDA GPUs are available\n")
        error = await error_of(stage, "--exit", "1", "--print", "ValueError: no")
        assert error.details == ("ValueError: no",)
        assert "GPU" not in error.message

    async def test_a_fatal_line_ends_the_wait_although_the_server_hangs(self, stage: Stage) -> None:
        line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
        error = await error_of(stage, "--hang", "--print", line)
        assert error.message == "The stand-in server cannot start: the GPU has too little free memory."
        assert error.details == (line,)

    async def test_it_is_killed_and_not_asked_to_end_while_nobody_is_told_why(self, stage: Stage) -> None:
        signals = stage.log.with_name("signals")
        await error_of(stage, "--hang", "--record-signals", str(signals), "--print", "RuntimeError: CUDA out of memory")
        assert not signals.exists()

    async def test_an_engine_that_dies_while_the_server_goes_on_waiting_for_it(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """lmdeploy before 0.14 waits for ever for a process that ended while it loaded weights."""
        look = VitalProcesses.look

        def looks_then_it_dies(vital: VitalProcesses) -> dict[int, int | None]:
            ours = stage.processes()
            failed = look(vital)
            guardian.send({pid for pid in ours if psutil.Process(pid).ppid() in ours}, signal.SIGKILL)
            return failed

        monkeypatch.setattr(VitalProcesses, "look", looks_then_it_dies)
        error = await error_of(stage, "--hang", "--worker", "child", "--print", "loading")
        assert re.fullmatch(
            r"The stand-in server cannot start, since process [0-9]+ of its engine has ended \(killed by SIGKILL\): "
            r"it was killed, probably by the kernel for lack of memory\.",
            error.message,
        )

    async def test_a_command_that_does_not_exist(self, stage: Stage) -> None:
        stage.command = ["/no/such/server"]
        error = await error_of(stage)
        assert error.message == (
            "The stand-in server could not be started: [Errno 2] No such file or directory: '/no/such/server'."
        )

    async def test_a_log_that_cannot_be_written(self, stage: Stage) -> None:
        stage.log.mkdir(parents=True)
        error = await error_of(stage)
        assert error.message == f"The server's log {stage.log} cannot be written: Is a directory."


def fails_once(stage: Stage, printed: str, end: str) -> None:
    """Have the first start print something and do ``end``, and the second one succeed."""
    flag = stage.file("flag")
    script = f'if [ -e {flag} ]; then exec "$0" "$@"; fi; touch {flag}; echo "$PRINTED"; {end}'
    stage.command = ["env", f"PRINTED={printed}", "sh", "-c", script, *stage.command]


class TestPort:
    TAKEN = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 1): address already in use"

    async def test_a_port_that_was_taken_meanwhile_is_replaced_once(self, stage: Stage) -> None:
        fails_once(stage, self.TAKEN, "exit 1")
        async with stage.supervisor() as server:
            assert server.base_url.endswith(f":{stage.ports[1]}/v1")
        said = [line for line in stage.said if not line.startswith("starting stand-in")]
        assert said == [
            "starting again: The stand-in server ended before it was ready (exit code 1): another process is using "
            "its port."
        ]

    async def test_a_server_that_cannot_listen_and_does_not_end_is_ended_and_replaced(self, stage: Stage) -> None:
        fails_once(stage, self.TAKEN, "exec sleep 600")
        async with stage.supervisor() as server:
            assert server.base_url.endswith(f":{stage.ports[1]}/v1")
        assert any("cannot start: another process is using its port" in line for line in stage.said)

    async def test_two_ports_taken_are_too_many(self, stage: Stage) -> None:
        error = await error_of(stage, "--exit", "1", "--print", self.TAKEN)
        assert "another process is using its port" in error.message
        assert len(stage.ports) == 2

    async def test_one_taken_between_its_choice_and_its_use_is_replaced(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            chosen = iter([taken.getsockname()[1], supervisor._free_port("127.0.0.1")])
            monkeypatch.setattr(supervisor, "_free_port", lambda _: next(chosen))
            async with stage.supervisor() as server:
                assert stage.ports[0] == taken.getsockname()[1]
                assert server.base_url.endswith(f":{stage.ports[1]}/v1")


class TestRace:
    """6 of 20 starts of lmdeploy's PyTorch engine end like this on a slow machine."""

    LINES = "EOFError\nlmdeploy.pytorch.engine.mp_engine.zmq_rpc.RPCServerDeadError: PyTorch ZMQ engine process is not"

    async def test_a_start_that_lost_a_race_is_tried_once_more_and_that_is_said(self, stage: Stage) -> None:
        fails_once(stage, self.LINES, "exit 1")
        async with stage.supervisor() as server:
            assert server.pid
        assert any("a race in lmdeploy" in line and line.startswith("starting again: ") for line in stage.said)

    async def test_a_start_that_loses_it_twice_is_an_error(self, stage: Stage) -> None:
        error = await error_of(stage, "--exit", "1", "--print", self.LINES)
        assert "its engine process was cut off while starting" in error.message
        assert len(stage.ports) == 2

    async def test_another_cause_in_the_same_log_is_no_race(self, stage: Stage) -> None:
        error = await error_of(stage, "--exit", "1", "--print", f"{self.LINES}\nMemoryError")
        assert "the machine has too little memory" in error.message
        assert len(stage.ports) == 1


class TestDeath:
    async def test_it_is_noticed_within_two_seconds_and_explained(self, stage: Stage) -> None:
        async def dies() -> float:
            stage.log.unlink(missing_ok=True)
            async with stage.supervisor("--print", "serving") as server:
                death = asyncio.ensure_future(server.wait_for_death())
                await asyncio.sleep(0.1)
                assert not death.done()
                began = time.monotonic()
                os.kill(server.pid, signal.SIGKILL)
                error = await asyncio.wait_for(death, PATIENCE_S)
                took = time.monotonic() - began
            assert error.message == (
                "The stand-in server died (killed by SIGKILL): it was killed, probably by the kernel for lack of "
                "memory."
            )
            assert error.details == ("serving",)
            assert error.exit_code == 3
            return took

        assert await fastest_of(dies, below=2) < 2

    async def test_it_is_noticed_although_workers_are_still_there(self, stage: Stage) -> None:
        async with stage.supervisor("--worker", "daemon", "--worker", "stubborn") as server:
            os.kill(server.pid, signal.SIGABRT)
            error = await asyncio.wait_for(server.wait_for_death(), PATIENCE_S)
            assert "killed by SIGABRT" in error.message
        assert not stage.processes()

    async def test_it_can_be_waited_for_by_many_and_after_the_fact(self, stage: Stage) -> None:
        async with stage.supervisor() as server:
            given_up = asyncio.ensure_future(server.wait_for_death())
            await asyncio.sleep(0)
            given_up.cancel()
            os.kill(server.pid, signal.SIGKILL)
            first = await asyncio.wait_for(server.wait_for_death(), PATIENCE_S)
            second = await asyncio.wait_for(server.wait_for_death(), PATIENCE_S)
        assert first.message == second.message

    async def test_the_guardians_death_is_the_servers(self, stage: Stage) -> None:
        async with stage.supervisor("--worker", "daemon", "--worker", "session", "--worker", "stubborn") as server:
            [guardian] = guardians_of(os.getpid())
            os.kill(guardian, signal.SIGKILL)
            error = await asyncio.wait_for(server.wait_for_death(), PATIENCE_S)
            assert error.message == "The stand-in server died: the process that guards it was killed."
            await eventually(lambda: not stage.processes())


async def test_a_guardian_that_hangs_is_replaced_by_ourselves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_PATIENCE_WITH_GUARDIAN", 0.5)
    async with stage.supervisor("--worker", "daemon", "--worker", "stubborn"):
        [guardian] = guardians_of(os.getpid())
        os.kill(guardian, signal.SIGSTOP)
    assert not stage.processes()
    assert not guardians_of(os.getpid())
