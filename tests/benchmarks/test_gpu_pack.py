"""What is packed for a machine without network."""

import zipfile
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from benchmarks.gpu.pack import Wanted, read_present, still_missing, without_turbomind


def test_what_is_there_in_a_version_that_will_do_is_not_packed() -> None:
    present = read_present("aiohttp==3.13.2\nTyping_Extensions==4.15.0\ntransformers==5.17.0\n")
    wanted = {
        canonicalize_name(name): Wanted(SpecifierSet(specifier))
        for name, specifier in {
            "aiohttp": ">=3.11,<4",
            "typing-extensions": ">=4",
            "transformers": ">=4.56,<5",
            "fire": "",
        }.items()
    }
    assert set(still_missing(wanted, present, {})) == {"transformers", "fire"}
    packed = {canonicalize_name("transformers"): "4.57.6", canonicalize_name("aiohttp"): "3.10.0"}
    # What is packed hides what is present.
    assert set(still_missing(wanted, present, packed)) == {"aiohttp", "fire"}


def test_a_wheel_is_repacked_without_turbomind_and_its_record_says_so(tmp_path: Path) -> None:
    wheel = tmp_path / "lmdeploy-0.18.0-cp312-cp312-manylinux_2_28_x86_64.whl"
    library = "lmdeploy/turbomind/_turbomind.cpython-312-x86_64-linux-gnu.so"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(library, "large")
        archive.writestr("lmdeploy/turbomind/turbomind.py", "small")
        archive.writestr(
            "lmdeploy-0.18.0.dist-info/RECORD", f"{library},sha256=x,5\nlmdeploy/turbomind/turbomind.py,sha256=y,5\n"
        )
    without_turbomind(wheel)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["lmdeploy/turbomind/turbomind.py", "lmdeploy-0.18.0.dist-info/RECORD"]
        assert archive.read("lmdeploy-0.18.0.dist-info/RECORD") == b"lmdeploy/turbomind/turbomind.py,sha256=y,5\n"
