"""Which programs are compared, and how they are installed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to compare with.

    Attributes:
        name: Of its driver, ``drive_NAME.py``, and of its environment.
        package: Its distribution; "" for a driver that runs in this environment.
        requirements: Arguments of ``pip install``, one call after the other.
        servers: Parameters of the simulated servers it is run against.
    """

    name: str
    package: str
    requirements: Sequence[Sequence[str]]
    servers: Sequence[str] = ("no_latency", "small_model", "explaining")


PEERS = (
    Peer("bundle", "", ()),
    Peer("bare_aiohttp", "", ()),
    Peer("lm_eval", "lm-eval", (("lm-eval[api]==0.4.13",),)),
    Peer("evalscope", "evalscope", (("evalscope==1.14.1",),)),
    Peer("inspect_ai", "inspect-ai", (("inspect-ai==0.3.285", "openai"),)),
    Peer(
        "opencompass",
        "opencompass",
        (
            ("--upgrade", "pip", "setuptools<81", "wheel"),  # it imports pkg_resources, which setuptools has dropped
            ("torch==2.13.0",),  # named first, so that pip does not fetch a CUDA build for a program that calls an API
            ("-r", str(Path(__file__).with_name("requirements_opencompass.txt"))),
            ("--no-deps", "opencompass==0.3.3"),
        ),
    ),
)
