"""However it ends, and in whatever phase: nothing of the server is alive afterwards."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.system import guarded, guardian
from bundle.system.guarded import GuardedProcess
from tests.patience import PATIENCE_S, eventually
from tests.serving.stand_in import Stage, alive, guardians_of

WORKERS = ("--worker", "child", "--worker", "session", "--worker", "daemon", "--worker", "stubborn")
TRACTABLE = ("--worker", "child", "--worker", "session")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(guarded._orphans_are_ours, "adopts", True)  # as in a command
    stage = Stage(tmp_path)
    yield stage
    assert not stage.kill_what_is_left()


def is_subreaper() -> bool:
    before = guardian.become_subreaper()
    guardian.become_subreaper(before)
    return before


async def test_success(stage: Stage) -> None:
    async with stage.supervisor(*WORKERS):
        assert len(stage.processes()) == 5
        assert is_subreaper()
    assert not stage.processes()
    assert not is_subreaper()


async def test_an_exception_in_the_block(stage: Stage) -> None:
    with pytest.raises(ZeroDivisionError):
        async with stage.supervisor(*TRACTABLE):
            raise ZeroDivisionError
    assert not stage.processes()


async def test_stopping_twice_and_after_the_end(stage: Stage) -> None:
    supervisor = stage.supervisor(*TRACTABLE)
    async with supervisor:
        await asyncio.gather(supervisor.stop(), supervisor.stop(at_once=True))
        assert not stage.processes()
        await supervisor.stop()
    await supervisor.stop()
    supervisor.kill()


async def test_stopping_what_was_never_started(stage: Stage) -> None:
    supervisor = stage.supervisor()
    supervisor.kill()
    await supervisor.stop()


async def test_two_servers_at_once_do_not_end_each_other(stage: Stage, tmp_path: Path) -> None:
    other = Stage(tmp_path / "other")
    async with stage.supervisor(*TRACTABLE) as server:
        before = guardians_of(os.getpid())
        async with other.supervisor(*TRACTABLE):
            [guarding] = guardians_of(os.getpid()) - before
            os.kill(guarding, signal.SIGKILL)
            await eventually(lambda: not other.processes())
        assert server.pid in stage.processes()
        assert is_subreaper()


class TestCancelled:
    async def test_before_the_server_is_there(self, stage: Stage) -> None:
        for turns in range(12):  # Each a different point of the start.
            entering = asyncio.ensure_future(stage.supervisor("--hang").__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0)
            entering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await entering
            assert not stage.processes()
            await eventually(lambda: not guardians_of(os.getpid()))

    async def test_while_it_starts(self, stage: Stage) -> None:
        entering = asyncio.ensure_future(stage.supervisor(*TRACTABLE, "--hang").__aenter__())
        await eventually(lambda: len(stage.processes()) == 3)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert not stage.processes()

    async def test_while_it_generates_its_first_token(self, stage: Stage) -> None:
        options = (*TRACTABLE, "--generate", "hang", "--journal", stage.file("journal"))
        entering = asyncio.ensure_future(stage.supervisor(*options).__aenter__())
        await eventually(lambda: "completions" in stage.read("journal"))
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert not stage.processes()

    async def test_while_it_is_ready(self, stage: Stage) -> None:
        ready = asyncio.Event()

        async def run() -> None:
            async with stage.supervisor(*TRACTABLE):
                ready.set()
                await asyncio.Event().wait()

        running = asyncio.ensure_future(run())
        await ready.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not stage.processes()

    async def test_while_it_stops_again_and_again(self, stage: Stage) -> None:
        supervisor = stage.supervisor("--record-signals", stage.file("asked"), "--worker", "stubborn")
        await supervisor.__aenter__()
        leaving = asyncio.ensure_future(supervisor.__aexit__(None, None, None))
        await eventually(lambda: stage.read("asked"))
        for _ in range(3):
            leaving.cancel()
            await asyncio.sleep(0.05)
            assert not leaving.done()
        # The user has had enough: it is not asked twice, as it would be after three seconds.
        supervisor.kill()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert stage.read("asked").split() == ["SIGINT"]
        assert not stage.processes()

    async def test_a_timeout_around_it_all(self, stage: Stage) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1), stage.supervisor(*TRACTABLE, "--hang"):
                pytest.fail("it was ready")
        assert not stage.processes()


class Program:
    """``supervise.py`` in a process of its own."""

    def __init__(self, stage: Stage, process: asyncio.subprocess.Process) -> None:
        self.stage = stage
        self.process = process
        self.guardians: set[int] = set()

    @classmethod
    async def start(cls, stage: Stage, *options: str, forks: bool = False) -> "Program":
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.serving.supervise", str(stage.directory), *options),
            cwd=Path(__file__).parents[2],
            env={**os.environ, **({"FORK_A_CHILD": "1"} if forks else {})},
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(stage, process)

    async def becomes_ready(self) -> int:
        await eventually(lambda: self.stage.read("ready"))
        return int(self.stage.read("ready"))

    async def starts(self, count: int) -> None:
        await eventually(lambda: len(self.stage.processes() - {self.process.pid}) == count)

    def kill(self, signum: int) -> None:
        """Send it a signal, unless it came to its end before us, as on a busy machine."""
        self.guardians |= guardians_of(self.process.pid)
        if self.process.returncode is None:
            self.process.send_signal(signum)

    async def leaves_nothing(self) -> None:
        """Nothing is alive in the end; the guardian is not, either."""
        await eventually(lambda: not self.stage.processes() and not self.guardians & alive())
        await asyncio.wait_for(self.process.wait(), PATIENCE_S)


async def killed_while_it_starts(stage: Stage) -> None:
    program = await Program.start(stage, *TRACTABLE, "--hang")
    await program.starts(3)
    program.kill(signal.SIGKILL)
    await program.leaves_nothing()


async def killed_while_it_is_ready_and_the_server_obeys_nobody(stage: Stage) -> None:
    program = await Program.start(stage, "--stubborn", *WORKERS)
    await program.becomes_ready()
    program.kill(signal.SIGKILL)
    await program.leaves_nothing()


async def killed_while_it_stops(stage: Stage) -> None:
    program = await Program.start(stage, "--record-signals", stage.file("asked"), *WORKERS)
    await program.becomes_ready()
    program.kill(signal.SIGINT)
    await eventually(lambda: stage.read("asked"))
    program.kill(signal.SIGKILL)
    await program.leaves_nothing()


async def interrupted_twice(stage: Stage) -> None:
    program = await Program.start(stage, "--record-signals", stage.file("asked"), *TRACTABLE)
    await program.becomes_ready()
    program.kill(signal.SIGINT)
    await eventually(lambda: stage.read("asked"))
    program.kill(signal.SIGINT)
    await program.leaves_nothing()
    assert program.process.returncode != 0


async def test_the_program_is_killed_or_interrupted_twice_in_any_phase(tmp_path: Path) -> None:
    # Side by side, since stopping a server that does not want to takes some seconds.
    scenarios = (
        killed_while_it_starts,
        killed_while_it_is_ready_and_the_server_obeys_nobody,
        killed_while_it_stops,
        interrupted_twice,
    )
    stages = [Stage(tmp_path / scenario.__name__) for scenario in scenarios]
    await asyncio.gather(*(scenario(stage) for scenario, stage in zip(scenarios, stages, strict=True)))
    assert not set[int]().union(*(stage.kill_what_is_left() for stage in stages))


class TestTheProgramIsKilled:
    async def test_although_a_child_it_forked_holds_its_pipes_open(self, stage: Stage) -> None:
        program = await Program.start(stage, *TRACTABLE, forks=True)
        await program.becomes_ready()
        [forked] = alive(program.process.pid) - guardians_of(program.process.pid)
        program.kill(signal.SIGKILL)
        await eventually(lambda: not program.guardians & alive())
        os.kill(forked, signal.SIGKILL)
        await program.leaves_nothing()

    async def test_at_the_same_instant_as_its_guardian(self, stage: Stage) -> None:
        program = await Program.start(stage)
        server = await program.becomes_ready()
        [guarding] = guardians_of(program.process.pid)
        os.kill(program.process.pid, signal.SIGSTOP)  # So that it cannot do anything about it.
        os.kill(guarding, signal.SIGKILL)
        os.kill(program.process.pid, signal.SIGKILL)
        await eventually(lambda: server not in alive())
        await program.leaves_nothing()


class TestTheProgramIsEnded:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    async def test_by_a_signal(self, stage: Stage, signum: signal.Signals) -> None:
        program = await Program.start(stage, *TRACTABLE)
        await program.becomes_ready()
        program.kill(signum)
        await program.leaves_nothing()
        assert program.process.returncode != 0

    async def test_ctrl_c_in_its_terminal_reaches_it_alone(self, stage: Stage) -> None:
        program = await Program.start(stage, *TRACTABLE)
        server = await program.becomes_ready()
        [guarding] = guardians_of(program.process.pid)
        groups = {os.getpgid(pid) for pid in (program.process.pid, guarding, server)}
        assert len(groups) == 3
        program.kill(signal.SIGTERM)
        await program.leaves_nothing()


@pytest.mark.parametrize("who", ["server", "guardian"])
async def test_on_uvloop_a_death_is_noticed_and_nothing_is_left(stage: Stage, who: str) -> None:
    program = await Program.start(stage, *WORKERS)
    server = await program.becomes_ready()
    [guarding] = guardians_of(program.process.pid)
    os.kill({"server": server, "guardian": guarding}[who], signal.SIGKILL)
    assert await asyncio.wait_for(program.process.wait(), PATIENCE_S) == 0
    assert "died" in stage.read("death")
    assert not stage.processes()
    assert guarding not in alive()


class TestTheGuardianIsNotThereToHelp:
    async def test_it_is_killed_while_a_worker_lives_that_shows_nothing_of_where_it_is_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It leads a session of its own and has an empty environment: only its new parent, which is us, can know it."""
        monkeypatch.setattr(guarded._orphans_are_ours, "adopts", True)  # as in a command
        told = tmp_path / "worker"
        worker = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        server = (
            "import subprocess, sys, time; "
            f"subprocess.Popen([sys.executable, '-S', '-c', {worker!r}], env={{}}, start_new_session=True); "
            "time.sleep(600)"
        )
        process, before = GuardedProcess(), guardians_of(os.getpid())
        await process.start([sys.executable, "-S", "-c", server], dict(os.environ), log=2)
        await eventually(lambda: told.is_file() and told.read_text())
        [guarding] = guardians_of(os.getpid()) - before

        os.kill(guarding, signal.SIGKILL)

        assert await asyncio.wait_for(process.gone, PATIENCE_S) == frozenset()
        assert int(told.read_text()) not in alive()

    async def test_it_is_killed_in_a_program_that_has_children_of_its_own(self) -> None:
        """As in a notebook: these have sessions of their own, too, and live on."""
        own = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        process, before = GuardedProcess(), guardians_of(os.getpid())
        try:
            server = await process.start(["sleep", "600"], dict(os.environ), log=2)
            later = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
            [guarding] = guardians_of(os.getpid()) - before

            os.kill(guarding, signal.SIGKILL)

            assert await asyncio.wait_for(process.gone, PATIENCE_S) == frozenset()
            assert server not in alive()
            assert own.returncode is later.returncode is None
            assert {own.pid, later.pid} <= alive()
        finally:
            for one in (own, later):
                one.kill()
                await one.wait()

    async def test_it_is_stopped_when_the_program_is_killed(self, stage: Stage) -> None:
        """A parent's death wakes it, so that it does its work."""
        program = await Program.start(stage, *TRACTABLE)
        await program.becomes_ready()
        [guarding] = guardians_of(program.process.pid)
        os.kill(guarding, signal.SIGSTOP)
        program.kill(signal.SIGKILL)
        await program.leaves_nothing()
