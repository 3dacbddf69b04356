"""bootstrap: what each command installs, and that no way of failing leaves a half-made .venv in use."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import bootstrap
from bootstrap_steps import index, packages, running, venv
from tests.bootstrap_project import ROOT, Index, Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the POSIX entry; on Windows: python bootstrap.py")
REAL_HAS_PIP = venv.has_pip
EVERYTHING = {"learn", "mcu", "search", "fleet", "postgresql", "test"}


@pytest.fixture
def nothing(tmp_path: Path) -> Project:
    """A checkout on which bootstrap never ran."""
    return Project(tmp_path)


@pytest.fixture
def project(nothing: Project) -> Project:
    """The same with an empty .venv: what happens before is slow and the matter of other tests."""
    nothing.prepare()
    return nothing


def call(answer: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """What Invoke was called with; the test fails with bootstrap's own words when it was not."""
    assert answer.stdout, answer.stderr
    return dict(json.loads(answer.stdout))


def one_sentence(answer: subprocess.CompletedProcess[str]) -> str:
    """The last line on stderr of a failed run: it must be ours and no traceback may come before it."""
    assert answer.returncode not in (0, None) and not answer.stdout
    assert "Traceback" not in answer.stderr
    last = answer.stderr.strip().splitlines()[-1]
    assert last.startswith("bootstrap: ")
    return last


# --- what a command needs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        ([], set()),
        (["--list"], set()),
        (["graph", "--target", "mcu-sim"], set()),
        (["targets"], set()),
        (["doctor"], set()),
        (["bench", "--help"], set()),
        (["bench", "--target", "mcu-sim"], {"learn", "mcu"}),
        (["bench", "--target=mcu-sim"], {"learn", "mcu"}),
        (["build"], {"learn", "mcu"}),
        (["bench", "--model", "x.tflite", "--target", "mcu-sim"], {"mcu"}),
        (["bench", "--model=X.TFLITE", "--target=mcu-sim", "--data", "test"], {"mcu"}),
        (["bench", "--model", "x.onnx", "--target", "mcu-sim"], {"learn", "mcu"}),
        (["deploy", "--target", "rpi4"], {"learn"}),
        (["bench", "--target", "mcu-smi"], set()),
        (["teacher", "--recipe", "digits"], {"learn"}),
        (["report"], {"learn"}),
        (["fleet.push"], {"fleet"}),
        (["release.create"], {"fleet"}),
        (["search", "--target", "mcu-sim"], {"learn", "mcu", "search"}),
        (["test"], EVERYTHING),
        (["test", "compiler", "--no-skips"], EVERYTHING),
        (["soak", "compiler"], EVERYTHING),
        (["bench", "--recipe", "test", "--target", "mcu-sim"], {"learn", "mcu"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "+".join(sorted(value)) or "base",
)
def test_a_command_brings_what_it_needs(
    words: list[str], extras: set[str], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "ROOT", project.root)
    assert bootstrap.extras_for(words) == extras


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["test"], ["test"]),
        (["test", "learn", "--no-skips", "spine"], ["test", "--no-skips", "--part=learn,spine"]),
        (["bench", "--target", "x"], ["bench", "--target", "x"]),
    ],
)
def test_parts_of_the_suite_become_an_option(words: list[str], given: list[str]) -> None:
    assert bootstrap.parts_as_option(words) == given


def test_every_requirement_is_locked_and_its_licence_told() -> None:
    told = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    lock = (ROOT / "requirements" / "lock.txt").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in itertools.chain(project["dependencies"], *project["optional-dependencies"].values()):
        name = re.match(r"[A-Za-z0-9-]+", requirement)
        assert name and re.search(rf"^{name[0]}==", lock, re.MULTILINE), requirement
        assert f"\n| {name[0]} | " in told, requirement
    assert "://" not in lock


# --- from nothing, and again --------------------------------------------------------------------


def test_from_nothing_it_says_the_size_and_becomes_invoke(nothing: Project, tmp_path: Path) -> None:
    answer = nothing.run("targets", "--json", cwd=tmp_path)
    assert call(answer) == {
        "argv": ["--search-root", str(nothing.root), "targets", "--json"],
        "cwd": str(tmp_path),
        "prefix": str(nothing.root / ".venv"),
    }
    lines = answer.stderr.strip().splitlines()
    assert re.search(r"base \(about \d+ MB", lines[0])
    assert any(re.search(r"1 packages, 0 MB to download \(\d+ MB more in 1 files", line) for line in lines)
    assert "ready" in lines[-2] and "invoke --list" in lines[-1]


def test_the_second_call_starts_at_once(project: Project) -> None:
    project.run()
    shutil.rmtree(project.index.folder)  # whatever asked for a package now would fail
    answer = project.run("fail")
    assert call(answer)["argv"] == ["--search-root", str(project.root), "fail"]
    assert answer.stderr == "" and answer.returncode == 3


def test_a_later_command_adds_what_it_needs_and_keeps_the_rest(project: Project) -> None:
    project.run("--list")
    assert not any(name.startswith("ziglang") for name in project.packages())
    project.run("bench", "--target", "mcu-sim", "--model", "x.tflite")
    assert {"invoke-3.0", "ziglang-0.17"} <= project.packages()
    assert "setting up" not in project.run("--list").stderr


def test_a_changed_lock_is_followed(project: Project) -> None:
    project.run("--list")
    project.index.add("invoke", "3.1", files={"invoke/__init__.py": "", "invoke/__main__.py": "print('3.1')"})
    assert call(project.run("--list"))
    (project.root / "requirements" / "lock.txt").write_text("invoke==3.1\n")
    assert project.run("--list").stdout == "3.1\n"


def test_the_checkout_can_be_imported_from_anywhere(project: Project, tmp_path: Path) -> None:
    project.run("--list")
    python = project.root / ".venv" / "bin" / "python"
    code = "import bootstrap_steps; print(bootstrap_steps.__file__)"
    answer = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(str(project.root))


def test_two_at_once_do_no_harm(nothing: Project) -> None:
    project = nothing
    command = [str(project.root / "bootstrap"), "--list"]
    both = [
        subprocess.Popen(command, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all(b"search-root" in stdout for stdout, _ in outputs)
    assert sum(b"setting up" in stderr for _, stderr in outputs) == 1


# --- torch without CUDA -------------------------------------------------------------------------


@pytest.fixture
def cuda(project: Project) -> Project:
    """The plain torch of this index needs CUDA packages, as on Linux."""
    project.index.add("torch", "2.13.0", ["nvidia-cublas"])
    project.index.add("nvidia-cublas", "13.1")
    return project


def test_cuda_is_left_out_where_it_would_come_unasked(cuda: Project) -> None:
    cuda.cpu_index.add("torch", "2.13.0+cpu")
    answer = cuda.run("teacher")
    assert "torch is 2.13.0+cpu" in answer.stderr
    assert "torch-2.13.0+cpu" in cuda.packages()
    assert not any(name.startswith("nvidia") for name in cuda.packages())


def test_gpu_takes_cuda_even_after_the_cpu_build(cuda: Project) -> None:
    cuda.cpu_index.add("torch", "2.13.0+cpu")
    cuda.run("teacher")
    answer = cuda.run("--gpu", "teacher")
    assert call(answer)["argv"] == ["--search-root", str(cuda.root), "teacher"]
    assert {"torch-2.13.0", "nvidia_cublas-13.1"} <= cuda.packages()
    assert "setting up" not in cuda.run("teacher").stderr


def test_a_plain_cpu_torch_is_taken_without_asking_elsewhere(project: Project) -> None:
    project.index.add("torch", "2.13.0")
    project.cpu_index.add("torch", "2.13.0+cpu")
    project.run("teacher")
    assert "torch-2.13.0" in project.packages()


def test_no_cpu_build_is_said_and_nothing_of_cuda_installed(cuda: Project) -> None:
    sentence = one_sentence(cuda.run("teacher"))
    assert "--gpu" in sentence
    assert not any(name.startswith(("nvidia", "torch")) for name in cuda.packages())


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["KILL", "INT", "TERM"]
)
def test_an_interrupted_install_is_continued(project: Project, signal_number: int) -> None:
    files = {f"slow/m{number}.py": f"x = {number}\n" for number in range(3000)}
    project.index.add("ziglang", "0.17", files={**files, "ziglang/__init__.py": ""})
    command = [str(project.root / "bootstrap"), "bench", "--model", "x.tflite"]
    process = subprocess.Popen(
        command,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not list(project.root.glob(".venv/lib/*/site-packages/slow/m1.py")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal_number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode != 0 and stdout == b"" and b"Traceback" not in stderr
    assert not (project.root / ".venv" / "edgekd-installed.json").exists()
    assert call(project.run("bench", "--model", "x.tflite"))
    assert len(list(project.root.glob(".venv/lib/*/site-packages/slow/m*.py"))) == 3000
    assert len({name for name in project.packages() if name.startswith("ziglang")}) == 1


@pytest.mark.parametrize("harm", ["no pip", "no python", "a file", "moved", "stamp cut short"])
def test_a_venv_that_is_not_whole_is_not_used(project: Project, harm: str) -> None:
    project.run("--list")
    environment = project.root / ".venv"
    if harm == "no pip":
        shutil.rmtree(next(environment.glob("lib/python*/site-packages/pip")))
        (environment / "edgekd-installed.json").unlink()
    elif harm == "no python":
        for link in environment.glob("bin/python*"):
            link.unlink()
    elif harm == "a file":
        next(environment.glob("lib/python*/site-packages/invoke/__main__.py")).unlink()
        (environment / "edgekd-installed.json").unlink()
    elif harm == "moved":
        project.root = project.root.rename(project.root.with_name("elsewhere"))
    else:
        (environment / "edgekd-installed.json").write_text('{"root": ')
    answer = project.run("--list")
    assert call(answer)["prefix"] == str(project.root / ".venv")
    assert "setting up" in answer.stderr


def test_a_link_to_an_environment_of_elsewhere_is_refused_and_that_left_alone(project: Project) -> None:
    project.run("--list")
    environment = project.root / ".venv"
    foreign = environment.rename(project.root.with_name("foreign"))
    environment.symlink_to(foreign)
    (foreign / "edgekd-installed.json").unlink()
    activate = foreign / "bin" / "activate"
    activate.write_text(activate.read_text().replace(str(environment), str(foreign)))
    before = sorted(foreign.rglob("*"))
    assert "remove the link" in one_sentence(project.run("--list"))
    assert sorted(foreign.rglob("*")) == before


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, "does not answer"),
        ({"PIP_INDEX_URL": "file:///nowhere"}, "finds no invoke==3.0 for Python"),
    ],
    ids=["no network", "no package"],
)
def test_a_failure_is_one_sentence_and_the_next_run_continues(
    project: Project, environment: dict[str, str], said: str
) -> None:
    assert said in one_sentence(project.run("--list", **environment))
    assert call(project.run("--list"))


@pytest.mark.parametrize("size_mb", [2, 40], ids=["no room for pip", "no room for a package"])
def test_a_full_disk_is_one_sentence(nothing: Project, tmp_path: Path, size_mb: int) -> None:
    """The real thing: .venv on a small file system."""
    noise = {f"ziglang/n{number}": os.urandom(500_000).hex() for number in range(40)}
    nothing.index.add("ziglang", "0.17", files=noise)
    place = nothing.root / ".venv"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system: run as root")
    try:
        answer = nothing.run("bench", "--model", "x.tflite", TMPDIR=str(tmp_path))
        assert "the disk is full" in one_sentence(answer)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert call(nothing.run("bench", "--model", "x.tflite"))


def test_without_a_python_one_sentence_says_which(nothing: Project, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dirname").symlink_to(str(shutil.which("dirname")))
    answer = nothing.run("--list", PATH=str(programs))
    assert "Python 3.11 to 3.14" in one_sentence(answer)
    assert "no python3 was found" in answer.stderr


def test_a_python_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "TOO_NEW", sys.version_info[:2])
    with pytest.raises(bootstrap.BootstrapError, match=r"3\.11 to 3\.14 and this is"):
        bootstrap.check_python()


def test_a_folder_that_cannot_be_written_is_one_sentence(nothing: Project) -> None:
    (nothing.root / ".venv").write_text("in the way")
    assert str(nothing.root / ".venv") in one_sentence(nothing.run("--list"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution found for a",
            "answer",
        ),
        ("SSLError(SSLCertVerificationError: CERTIFICATE_VERIFY_FAILED", "certificate"),
        ("ERROR: No matching distribution found for torch==2.13.0", "finds no torch==2.13.0 for Python"),
        ("The conflict is caused by:\n  The user requested (constraint) a<2,==3\n", "no a<2,==3 for"),
        ("WARNING: a\nERROR: what nobody foresaw\nnote: b", "pip failed: what nobody foresaw"),
        ("", "pip failed: it says nothing"),
    ],
)
def test_what_pip_says_becomes_what_to_do(text: str, said: str) -> None:
    assert said in running.explain("pip failed", text)


# --- without ensurepip --------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A Python like Debian's without python3-venv: no ensurepip, and nothing else that makes environments."""
    monkeypatch.setattr(venv, "has_ensurepip", lambda: False)
    monkeypatch.setattr(venv, "has_pip", lambda: False)
    monkeypatch.setattr(venv.shutil, "which", lambda name: None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return monkeypatch


@pytest.fixture
def pip_index(tmp_path: Path) -> Index:
    """An index with nothing but pip, the one that CPython carries."""
    import ensurepip

    made = Index(tmp_path / "pip-index")
    bundled = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    (made.folder / "pip").mkdir()
    shutil.copy(bundled, made.folder / "pip")
    (made.folder / "pip" / "index.html").write_text(f'<a href="{bundled.name}">pip</a>')
    return made


def serve(folder: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    port = re.search(r"port (\d+)", server.stdout.readline())
    assert port
    return f"http://127.0.0.1:{port[1]}"


def test_pip_itself_is_fetched_from_the_configured_index(
    bare: pytest.MonkeyPatch, pip_index: Index, tmp_path: Path
) -> None:
    with serve(pip_index.folder) as server:
        bare.setenv("PIP_INDEX_URL", address(server))
        made = tmp_path / "made"
        made.mkdir()
        venv.make_usable(made, made / "bin" / "python")
        server.terminate()
    assert venv.works(made / "bin" / "python", made)


def test_an_installed_pip_makes_the_environment(
    bare: pytest.MonkeyPatch, pip_index: Index, tmp_path: Path
) -> None:
    bare.setattr(venv, "has_pip", REAL_HAS_PIP)
    bare.setattr(venv, "base_python", lambda: sys.executable)  # the tests' own Python has pip for certain
    bare.setenv("PIP_INDEX_URL", pip_index.url)
    made = tmp_path / "made"
    made.mkdir()
    venv.make_usable(made, made / "bin" / "python")
    assert venv.works(made / "bin" / "python", made)


def test_with_nothing_at_all_the_line_that_mends_it_is_named(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with pytest.raises(running.StepError, match=r"apt-get install python3\.\d+-venv"):
        venv.make_usable(made, made / "bin" / "python")


def test_a_damaged_pip_is_refused_and_no_password_is_printed(pip_index: Index, tmp_path: Path) -> None:
    page = pip_index.folder / "pip" / "index.html"
    page.write_text(page.read_text().replace(".whl", f".whl#sha256={'0' * 64}", 1))
    with serve(pip_index.folder) as server:
        where = address(server)
        with pytest.raises(running.StepError, match="damaged"):
            index.fetch_pip(where, tmp_path)
        server.terminate()
    with pytest.raises(running.StepError) as raised:
        index.fetch_pip("http://me:secret@127.0.0.1:9", tmp_path)
    assert "secret" not in str(raised.value) and "127.0.0.1" in str(raised.value)


def test_the_newest_final_pip_is_chosen() -> None:
    names = [
        "pip-9.0-py3-none-any.whl",
        "pip-26.1-py3-none-any.whl",
        "pip-27.0b1-py3-none-any.whl",
        "pip-26.0.tar.gz",
    ]
    page = "".join(f'<a href="../files/{name}#sha256=00">{name}</a>' for name in names)
    page += '<a data-yanked="" href="pip-28.0-py3-none-any.whl">x</a>'
    assert index.newest_pip(page) == "../files/pip-26.1-py3-none-any.whl#sha256=00"


def test_the_configured_index_is_pips_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert index.configured() == ""
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = http://a.example/simple/\n")
    assert index.configured() == "http://a.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "http://b.example/simple")
    assert index.configured() == "http://b.example/simple"


# --- sizes --------------------------------------------------------------------------------------


def test_sizes_are_asked_of_the_host_and_unknown_ones_said(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"0" * 3_000_000)
    with serve(tmp_path) as server:
        where = address(server)
        found = packages.with_sizes(
            [
                packages.Package("a", "1", f"{where}/a.whl"),
                packages.Package("b", "1", f"{where}/absent.whl"),
                packages.Package("torch", "2+cpu", (tmp_path / "a.whl").as_uri()),
            ]
        )
        server.terminate()
    said = packages.describe(found)
    assert said.startswith("3 packages, 3 MB and 1 of unknown size to download (3 MB more in 1 files")
    assert said.endswith("torch is 2+cpu")
