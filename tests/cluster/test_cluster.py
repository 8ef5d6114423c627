"""One run on the machines of a Ray cluster, and what happens to it."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.cluster.box import ClusterBox
from tests.faults.box import ALL, MIDWAY, Box
from tests.patience import PATIENCE_S, wait_until
from tests.program import call
from tests.stand_ins.box import GPU


def replies(machine: Box) -> dict[tuple[str, int], tuple[str, str]]:
    return {key: (row["reply"], row["answer"]) for key, row in machine.answered().items()}


def test_two_machines_give_what_one_server_gives_row_for_row(box: ClusterBox, tmp_path: Path, tiny: Path) -> None:
    ended = box.run()
    assert ended.code == 0, ended.said
    box.check(answered=ALL)
    there = replies(box)
    counts = box.results["replicas"]
    assert len(counts) == 2
    assert sum(one["answered"] for one in counts) == ALL
    assert (box.run_directory / "server.log").read_text(encoding="utf-8")

    (tmp_path / "here").mkdir()
    here = Box(tmp_path / "here", tiny)
    assert here.run().code == 0
    assert replies(here) == there


@pytest.mark.parametrize("what", ["lmdeploy", "bundle.worker", "ray::Carrier"], ids=["server", "worker", "actor"])
def test_one_is_killed_midway(box: ClusterBox, what: str) -> None:
    box.nodes.set("stubborn; leaves a worker; good")
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 2)
    wait_until(lambda: len(box.rows()) >= 2 * MIDWAY)
    for pid in box.nodes.pids(what):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    ended = box.end_of(process)

    assert ended.code == 0, ended.said
    assert "not using" not in ended.said  # the lost workers' servers take seconds to end, which is waited for
    box.check(answered=ALL)


def test_a_worker_that_is_lost_while_it_opens_the_checkpoint_is_done_without(box: ClusterBox) -> None:
    process = box.start()
    wait_until(lambda: box.nodes.pids("bundle.worker"))
    os.kill(box.nodes.pids("bundle.worker")[0], signal.SIGKILL)

    ended = box.end_of(process)

    assert ended.code == 0, ended.said
    assert "not using vm: the worker is gone: it ended (killed by SIGKILL)".replace("vm", socket.gethostname()) in (
        ended.said
    )
    box.check(answered=ALL)


def test_why_the_first_server_does_not_come_up_is_said(box: ClusterBox) -> None:
    """While its worker still proves the tokenizer, for which the end of the server is no end of its own."""
    box.nodes.set("out of memory")
    ended = box.run()
    assert ended.code == 3
    assert "out of memory" in ended.said.replace("out of GPU memory", "out of memory")
    assert "the worker is gone" not in ended.said
    box.check_nothing_is_left()


def test_a_machine_where_the_tokenizer_cannot_be_proved_any_more_is_passed_over(box: ClusterBox) -> None:
    """It ends neither the run nor another machine's server."""
    other = box.nodes.directory / "other"
    for part in ("bin", "lib"):
        shutil.copytree(box.nodes.directory / part, other / part)
    broken, python, server = other / "broken", other / "bin" / "python", other / "bin" / "lmdeploy"
    proof = f'case "$*" in *tokenizer_probe*) [ -e "{broken}" ] && exit 5 ;; esac'
    python.write_text(f'#!/bin/sh\n{proof}\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    server.write_text(f"#!{python}\n" + server.read_text(encoding="utf-8").partition("\n")[2], encoding="utf-8")
    third = box.nodes.add(BUNDLE_LMDEPLOY=str(server))
    box.nodes.set("leaves a worker and waits for a word")
    try:
        process = box.start()
        wait_until(lambda: len(box.story.lives) >= 3)
        wait_until(lambda: len(box.rows()) >= 3 * MIDWAY)
        broken.touch()
        for pid in box.nodes.pids("lmdeploy"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "could not be checked" in box.log.read_text(encoding="utf-8"))
        box.nodes.go_on()

        ended = box.end_of(process)

        assert ended.code == 0, ended.said
        assert ended.said.count("could not be checked") == 1
        box.check(answered=ALL)
    finally:
        box.nodes.remove(third)


@pytest.mark.parametrize("is_reaped", [True, False], ids=["raylet", "raylet nobody reaps"])
def test_a_machine_is_lost_midway(box: ClusterBox, is_reaped: bool) -> None:
    box.nodes.set("stubborn; leaves a worker; stubborn; good")
    third = box.nodes.add()
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 3)
    wait_until(lambda: len(box.rows()) >= 3 * MIDWAY)
    if is_reaped:
        box.nodes.remove(third)
    else:
        box.nodes.make_zombie(third)
    for pid in box.nodes.pids("lmdeploy"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    try:
        ended = box.end_of(process)

        assert ended.code == 0, ended.said
        box.check(answered=ALL)
    finally:
        if not is_reaped:
            box.nodes.remove(third)


def test_what_a_stopped_worker_holds_is_asked_elsewhere(box: ClusterBox) -> None:
    box.nodes.set("takes its time")
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 2 and len(box.rows()) >= MIDWAY)
    os.kill(box.nodes.pids("bundle.worker")[0], signal.SIGSTOP)

    ended = box.end_of(process)

    assert ended.code == 0, ended.said
    box.check(answered=ALL)


def test_a_machine_whose_worker_was_given_up_is_used_again(box: ClusterBox) -> None:
    box.nodes.set("leaves a worker and waits for a word")
    process = box.start("--hang-timeout", 3600)
    wait_until(lambda: len(box.story.lives) >= 2 and len(box.rows()) >= 2 * MIDWAY)
    stopped, _ = box.nodes.pids("bundle.worker")
    os.kill(stopped, signal.SIGSTOP)

    wait_until(lambda: len({*box.nodes.pids("bundle.worker")} - {stopped}) == 2, 3 * PATIENCE_S)
    box.nodes.go_on()

    ended = box.end_of(process)
    assert ended.code == 0, ended.said
    assert "nothing was heard of the worker for 30 s" in ended.said
    box.check(answered=ALL)


def test_the_driver_is_killed_and_resumes_with_another_number(box: ClusterBox) -> None:
    box.nodes.set("stubborn; leaves a worker; good")
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 2)
    wait_until(lambda: len(box.rows()) >= 2 * MIDWAY)
    process.kill()
    process.wait()
    box.check_nothing_is_left()
    before = box.answered().keys()

    ended = box.run("--resume", box.run_directory, "--replicas", 1)

    assert ended.code == 0, ended.said
    assert before <= box.answered().keys()
    box.check(answered=ALL)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupted_nothing_is_left(box: ClusterBox, times: int) -> None:
    box.nodes.set("stubborn; leaves a worker; good")
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 2)
    wait_until(lambda: len(box.rows()) >= 2 * MIDWAY)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    box.check_nothing_is_left()


def test_another_version_on_one_machine_is_passed_over(box: ClusterBox, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import bundle.version\nbundle.version.__version__ = '0.0'\n")
    paths = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    other = box.nodes.add(PYTHONPATH=paths)
    box.nodes.set("silent")
    try:
        process = box.start()
        wait_until(lambda: "bundle 0.0 there" in box.log.read_text(encoding="utf-8"))
        wait_until(lambda: len(box.rows()) >= 2 * MIDWAY)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    finally:
        box.nodes.remove(other)
    assert len(box.story.lives) == 2
    box.check_nothing_is_left()


def test_where_no_gpu_becomes_free_it_says_so(box: ClusterBox) -> None:
    box.nodes.set("silent")
    process = box.start()
    wait_until(lambda: len(box.story.lives) >= 2)
    wait_until(lambda: len(box.rows()) >= 2 * MIDWAY)

    ended = box.run("--wait", "1s")
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)

    assert ended.code == 3
    assert "1 GPU of the cluster did not become free in time" in ended.said


def test_a_gpu_that_another_program_holds_is_not_waited_for_while_another_machine_has_one(box: ClusterBox) -> None:
    """Ray takes it for a free one."""
    with contextlib.ExitStack() as cleanup:
        held: dict[str, contextlib.ExitStack] = {}
        for locks in box.nodes.directory.glob("locks-*"):
            path = locks / f"bundle-gpu-{GPU[1]}.lock"
            path.touch()
            held[str(locks)] = cleanup.enter_context(contextlib.ExitStack())
            fcntl.flock(held[str(locks)].enter_context(path.open()), fcntl.LOCK_EX)
        process = box.start("--replicas", 1, "--wait", "10m")
        wait_until(lambda: "waiting for a GPU" in box.log.read_text(encoding="utf-8"))
        (worker,) = box.nodes.processes("bundle.worker")
        there = worker.environ()["BUNDLE_GPU_LOCKS"]
        for place, lock in held.items():
            if place != there:
                lock.close()

        ended = box.end_of(process)

    assert ended.code == 0, ended.said
    assert "GPU 0 is in use by another run" in ended.said.partition("not using ")[2]
    box.check(answered=ALL)


def test_a_machine_that_ray_does_not_know_to_be_lost_is_passed_over(box: ClusterBox) -> None:
    box.nodes.remove(box.nodes.add())

    ended = box.run("--replicas", 2)

    assert ended.code == 0, ended.said
    box.check(answered=ALL)


def test_an_address_without_a_cluster_is_said(box: ClusterBox) -> None:
    ended = box.run("--cluster", "127.0.0.1:1")
    assert ended.code == 3
    assert "The cluster 127.0.0.1:1 cannot be reached" in ended.said


def test_doctor_looks_at_every_machine(box: ClusterBox, tiny: Path) -> None:
    ended = call("doctor", "--cluster", box.nodes.address, "--data", "sample", "--json", environment=box.environment)

    machines = json.loads(ended.stdout)
    assert machines.pop("cluster")["findings"] == []
    assert len(machines) >= 3
    for found in machines.values():
        assert any(one["topic"] == "gpu" and "H100" in one["text"] for one in found["findings"])
    box.check_nothing_is_left()
