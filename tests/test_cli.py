"""The command line as a person meets it: real processes, one sentence for each mistake, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EDGEKD = "import sys; sys.argv[0] = 'edgekd'; from edgekd.cli import main; main()"


def edgekd(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", EDGEKD, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def invoke(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invoke", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with a recipe and a target of its own."""
    for kind in ("recipes", "targets"):
        (tmp_path / kind).mkdir()
    (tmp_path / ".edgekd").mkdir()
    (tmp_path / "recipes" / "own.toml").write_text('name = "own"\ndescription = "x"\nseed = "one"\n')
    (tmp_path / "recipes" / "key.toml").write_text('name = "key"\ndescription = "x"\n[teacher]\nwidht = 3\n')
    (tmp_path / "targets" / "bad.toml").write_text(
        'name = "bad"\ndescription = "x"\nkind = "mcu"\ncores = 2\n'
    )
    (tmp_path / "cut.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3\x14")
    (tmp_path / "empty.tflite").write_bytes(b"")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)))
    (tmp_path / "model.txt").write_text("x")
    (tmp_path / "data.npz").write_text("no zip")
    return tmp_path


BAD = [
    (("bench", "--taget", "x"), 1, "'--taget' is no option or task here; did you mean --target?"),
    (("benhc",), 1, "'benhc' is no option or task here; did you mean bench?"),
    (("bench",), 2, "no target is named; add --target NAME"),
    (("bench", "--target", "mcusim"), 2, "target 'mcusim' does not exist; did you mean mcu-sim?"),
    (
        ("bench", "--target", "mcu-sim", "--recipe", "digit"),
        2,
        "recipe 'digit' does not exist; did you mean digits?",
    ),
    (
        ("bench", "--target", "mcu-sim", "--samples", "-3"),
        2,
        "--samples is '-3'; it must be a whole number from 1",
    ),
    (("bench", "--target", "mcu-sim", "--samples", "many"), 2, "--samples is 'many'"),
    (
        ("bench", "--target", "mcu-sim", "--engine", "qmu"),
        2,
        "engine 'qmu' does not exist; did you mean qemu?",
    ),
    (
        ("bench", "--target", "mcu-sim", "--compiler", "gc"),
        2,
        "compiler 'gc' does not exist; did you mean gcc?",
    ),
    (
        ("bench", "--target", "mcu-sim", "--optimize", "spee"),
        2,
        "optimize 'spee' does not exist; did you mean speed?",
    ),
    (("check", "--model", "cut.tflite", "--optimize", "tiny"), 2, "optimize 'tiny' does not exist"),
    (("bench", "--target", "mcu-sim", "--to", "pi@x"), 2, "--to is for Linux targets"),
    (("bench", "--target", "bad"), 2, "bad.toml: unknown key cores; did you mean core?"),
    (("teacher", "--recipe", "own"), 2, "own.toml: seed must be int, not str"),
    (("teacher", "--recipe", "key"), 2, "key.toml: unknown key teacher.widht; did you mean width?"),
    (("teacher", "--model", "model.txt"), 3, "model.txt: --model takes a .tflite or .onnx file"),
    (("bench", "--target", "mcu-sim", "--model", "gone.tflite"), 3, "gone.tflite: no such file"),
    (("bench", "--target", "mcu-sim", "--model", "cut.tflite"), 3, "cut.tflite"),
    (("bench", "--target", "mcu-sim", "--model", "empty.tflite"), 3, "empty.tflite"),
    (("bench", "--target", "mcu-sim", "--model", "empty.onnx"), 3, "empty.onnx"),
    (("bench", "--target", "mcu-sim", "--model", "noise.onnx"), 3, "noise.onnx"),
    (("bench", "--target", "mcu-sim", "--data", "gone.npz"), 3, "gone.npz: no such file"),
    (
        ("bench", "--target", "mcu-sim", "--model", "cut.tflite", "--recipe", "digits"),
        2,
        "--model replaces the recipe",
    ),
    (("teacher", "--model", "cut.tflite"), 2, "this stage learns from a recipe, and --model replaces it"),
    (("deploy", "--target", "mcu-sim"), 2, "mcu-sim"),
    (("show", "nothing"), 3, "no artifact in"),
    (("diff", "reference", "corr", "--target", "mcu-sim"), 2, "'corr' does not exist; did you mean core?"),
    (("diff", "reference", "host", "--model", "cut.tflite"), 3, "cut.tflite"),
    (("diff", "ort", "host", "--model", "cut.tflite"), 2, "ort runs a QDQ .onnx"),
    (("diff", "reference", "host"), 2, "recipe digits has no int8 model in the store yet"),
    (("check", "--model", "gone.tflite"), 3, "gone.tflite: no such file"),
    (("check", "--model", "cut.tflite", "--target", "mcu-sim"), 3, "cut.tflite"),
    (("check", "--model", "cut.tflite", "--compiler", "tcc"), 2, "compiler 'tcc' does not exist"),
    (("plan", "--model", "cut.tflite"), 3, "cut.tflite"),
    (("plan", "--model", "cut.tflite", "--target", "rpi4"), 2, "target rpi4 is of kind 'linux'"),
    (("front", "--model", "cut.tflite"), 3, "cut.tflite"),
    (("front", "--model", "cut.tflite", "--out", "front.png"), 2, "name a file that ends in .svg"),
    (("plan",), 2, "recipe digits has no int8 model in the store yet"),
    (("check", "--target", "mcu-sim"), 2, "recipe digits has no int8 model in the store yet"),
    (("check", "--model", "cut.tflite", "--target", "rpi4"), 2, "target rpi4 is of kind 'linux'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD, ids=[" ".join(b[0])[:60] for b in BAD])
def test_a_mistake_is_one_sentence_and_an_exit_code(
    project: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = edgekd(*arguments, cwd=project)
    assert message in done.stderr and done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    sentences = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert len(sentences) == 1, done.stderr
    assert not list((project / ".edgekd").glob("artifacts/*/*"))


def test_invoke_names_the_mistake_too(project: Path) -> None:
    done = invoke("bench", "--target", "mcusim")
    assert (done.returncode, done.stdout) == (2, "") and "did you mean mcu-sim?" in done.stderr
    assert "Traceback" not in invoke("benhc").stderr and invoke("benhc").returncode == 1


def test_dry_is_refused_by_name() -> None:
    done = invoke("--dry", "targets")
    assert (
        done.returncode == 2 and "--dry would run the task all the same" in done.stderr and done.stdout == ""
    )


def test_help_shows_our_options_and_not_invokes() -> None:
    text = edgekd("--help").stdout
    assert "--target" in text and "--recipe" in text
    assert "--prompt-for-sudo-password" not in text and "--pty" not in text
    assert "--target=STRING" in invoke("bench", "--help").stdout


def test_list_names_every_task_of_the_design() -> None:
    names = {line.split()[0] for line in invoke("--list").stdout.splitlines() if line.startswith("  ")}
    wanted = "teacher knowledge distill compress quantize export build deploy bench report"
    wanted += " targets graph doctor test"
    assert set(wanted.split()) <= names


def test_json_is_json_on_stdout() -> None:
    assert "mcu-sim" in json.loads(edgekd("targets", "--json").stdout)


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f'{sys.executable} -c "{EDGEKD}" targets --json | head -c 1'
    shell = ["bash", "-o", "pipefail", "-c", command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for _ in range(3):
        done = subprocess.run(
            shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_a_pipe_that_nobody_reads_ends_with_its_code() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", EDGEKD, "targets"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, stdout=writing, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert done.returncode == 141 and "Traceback" not in done.stderr


@pytest.mark.needs("torch")
def test_ctrl_c_says_how_to_go_on(project: Path) -> None:
    command = [sys.executable, "-c", EDGEKD, "distill"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = ""
    while "teacher" not in seen:
        line = process.stderr.readline()
        assert line, seen
        seen += line
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "stopped; run again to continue" in rest and "Traceback" not in rest


def test_the_store_lies_at_the_project_root_from_anywhere_in_it(project: Path) -> None:
    from edgekd import api

    (project / "deep" / "er").mkdir(parents=True)
    assert api.request(start=project / "deep" / "er").store.root == project / ".edgekd"
