"""The command line and the Makefile: every mistake is answered, every door leads somewhere."""

import dataclasses
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from cnn_codes import settings as settings_module
from cnn_codes.cli import STAGES, _parser, main
from cnn_codes.cli.options import assigned
from cnn_codes.errors import PipelineError
from conftest import ROOT, SMALL, as_user, python, ran
from filelock import FileLock
from pictures import jpeg, write_set

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = " ".join(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)).split()


@pytest.fixture
def run(cache, tmp_path, capsys):
    """Give the command line in this process: (exit code, output, messages)."""

    def call(stage, *arguments, **values):
        values = {
            "cache": cache, "results": tmp_path / "results", "data_root": tmp_path / "data",
            "engine": "torch", **SMALL, **values,
        }  # fmt: skip
        capsys.readouterr()
        code = main([stage, *arguments, *(f"{k.upper()}={v}" for k, v in values.items())])
        return code, *capsys.readouterr()

    return call


def assert_answered(outcome: tuple[int, str, str], *words: str) -> None:
    """Hold a mistake's answer: code 2, one message of three parts, no traceback, no result."""
    code, out, err = outcome
    assert code == 2, err
    assert out == ""
    message = err[err.index("error: ") :]
    lines = message.rstrip("\n").split("\n")
    assert len(lines) == 3, message
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("Expected: ")
    assert lines[2].startswith("Next: ")
    assert "Traceback" not in err
    for word in words:
        assert word in message


# Mistakes in the data


def one_class(folder: Path) -> Path:
    return write_set(folder, 4, classes=("cat",))


def no_image(folder: Path) -> Path:
    folder.mkdir()
    return folder


def unsorted(folder: Path) -> Path:
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    return folder


def class_without_training(folder: Path) -> Path:
    write_set(folder / "train", 6)
    write_set(folder / "test", 6, classes=("cat", "dog", "emu"))
    return folder


def listed_but_absent(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.txt").write_text("a.jpg cat\nwith space.jpg dog\n")
    return folder


def two_labels(folder: Path) -> Path:
    write_set(folder, 4)
    (folder / "labels.csv").write_text("path,label\ncat/0000.jpg,cat\ncat/0000.jpg,dog\n")
    return folder


def line_without_label(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.txt").write_text("a.jpg\n")
    return folder


def no_such_split(folder: Path) -> Path:
    write_set(folder, 4)
    (folder / "labels.csv").write_text("path,label,split\ncat/0000.jpg,cat,trial\n")
    return folder


def too_few(folder: Path) -> Path:
    return write_set(folder, 3)


def page_as_zip(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    path.write_bytes(b"<!DOCTYPE html>404")
    return path


def picture(folder: Path) -> Path:
    path = folder.with_suffix(".jpg")
    path.write_bytes(jpeg(1))
    return path


MISTAKES = {
    one_class: "one class only: 'cat'",
    no_image: "holds no images",
    unsorted: "3 images but no class folders",
    class_without_training: "'emu'",
    listed_but_absent: "with space.jpg (train.txt:2)",
    two_labels: "'dog' (labels.csv:3)",
    line_without_label: "line 1, has no label",
    no_such_split: "'trial'",
    too_few: "dog (1)",
    page_as_zip: "begins like a web page",
    picture: "holds no data set",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_data_is_answered(run, tmp_path, mistake):
    data = mistake(tmp_path / "set")
    assert_answered(run("svm", data=data), MISTAKES[mistake])


def test_a_class_of_which_no_image_can_be_read_is_answered(run, tmp_path):
    write_set(tmp_path / "set" / "train", 6)
    write_set(tmp_path / "set" / "test", 4)
    for path in (tmp_path / "set" / "train" / "cat").iterdir():
        path.write_bytes(b"<html>" + path.name.encode())
    assert_answered(run("svm", data=tmp_path / "set"), "training image of cat", "make audit")


@pytest.mark.parametrize(
    ("data", "near"), [("hotdgo", "hotdog"), ("ants_bees", "ants-bees"), ("x" * 30, "spelling")]
)
def test_an_unknown_data_set_answers_with_the_nearest(run, data, near):
    assert_answered(run("data", data=data), f"DATA={data}", near)


def test_labels_that_are_not_the_ones_before_are_never_used(run, tmp_path):
    """Relabelled, nothing runs again, but no head that was trained on the old labels is shown."""
    data = write_set(tmp_path / "pets", 24)
    assert run("svm", data=data)[0] == 0
    assert "(was there already)" in run("svm", data=data)[1]
    (data / "cat" / "0000.jpg").rename(data / "dog" / "0000.jpg")
    code, out, err = run("svm", data=data)
    assert code == 0
    assert "was there already" not in out
    assert "All 24 images were there" in err
    (data / "dog").rename(data / "wolf")
    code, out, err = run("svm", data=data)
    assert "was there already" not in out
    assert "All 24 images were there" in err


# Mistakes in the settings


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"model": "resnet81"}, ("resnet81", "MODEL=resnet18")),
        ({"weights": "nowhere.safetensors"}, ("nowhere.safetensors",)),
        ({"layers": "blocks9"}, ("no layer blocks9", "blocks.4")),
        ({"layers": ","}, ("LAYERS is empty",)),
        ({"pool": "median"}, ("POOL=median", "grid:K")),
        ({"size": "-3"}, ("SIZE=-3",)),
        ({"size": "two"}, ("size", "'two'", "whole number")),
        ({"resize": "squash"}, ("RESIZE=squash", "stretch")),
        ({"views": "flop"}, ("VIEWS=flop", "random:K")),
        ({"precision": "half"}, ("PRECISION=half", "mixed")),
        ({"precision": "mixed", "device": "cpu"}, ("PRECISION=mixed",)),
        ({"device": "cuda:77"}, ("DEVICE=cuda:77", "cpu")),
        ({"engine": "tensorrt"}, ("ENGINE=tensorrt", "onnx")),
        ({"workers": "-1"}, ("WORKERS",)),
        ({"offline": "maybe"}, ("offline", "'maybe'")),
        ({"methods": "ridge"}, ("svm takes no METHODS", "make heads METHODS=ridge")),
        ({"folds": "1"}, ("FOLDS=1",)),
        ({"splits": "0"}, ("SPLITS",)),
        ({"class_weight": "equal"}, ("CLASS_WEIGHT=equal", "balanced")),
        ({"fit": "stretch"}, ("FIT is now RESIZE: RESIZE=stretch",)),
        ({"batch": "8"}, ("BATCH is now EXTRACT_BATCH: EXTRACT_BATCH=8",)),
        ({"veiws": "flip"}, ("Unknown setting VEIWS", "did you mean VIEWS=flip?")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_in_a_setting_is_answered_before_any_work(run, tmp_path, setting, words):
    data = write_set(tmp_path / "pets", 12)
    code, out, err = run("svm", data=data, **setting)
    assert err.startswith("error: ")  # nothing was run before it
    if "Expected: " not in err:
        err = err.replace("\nNext: ", "\nExpected: -\nNext: ")
    assert_answered((code, out, err), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["swm"], ("Unknown stage swm", "did you mean svm?")),
        (["svm", "--veiws", "flip"], ("--veiws", "did you mean --views?")),
        (["svm", "--data-rot=x"], ("--data-rot", "did you mean --data-root?")),
        (["svm", "veiws=flip"], ("veiws=flip", "did you mean VIEWS=flip?")),
        (["svm", "path/to/folder"], ("path/to/folder", "DATA=path/to/folder")),
        (["svm", "--fit=pad"], ("FIT is now RESIZE: --resize=pad",)),
        (["svm", "--batch", "4"], ("BATCH is now EXTRACT_BATCH: --extract-batch",)),
        (["svm", "--view", "flip"], ("--view", "did you mean --views?")),
        (["--nothing"], ("--nothing",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_is_no_stage_and_no_option_answers_with_what_was_meant(capsys, arguments, words):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    for word in words:
        assert word in err


def test_settings_of_other_stages_are_passed_over_since_make_hands_on_all():
    assert assigned(["DATA=x", "IMAGES=y"], ["data"], ["data", "images"]) == ["--data=x"]


def test_a_flag_that_is_0_is_off_and_one_that_is_1_is_on(tmp_path):
    def offline(text: object) -> bool:
        return STAGES["svm"].chosen({"offline": text})[settings_module.DataSettings].offline

    for text, value in (("0", False), ("false", False), ("no", False), ("1", True), ("yes", True)):
        assert offline(text) is value
    assert offline(True) is True
    assert vars(_parser().parse_args(["svm", "--offline"]))["offline"] == "1"
    assert STAGES["svm"].chosen({})[settings_module.DataSettings].offline is False


# The machine says no


def assert_answered_process(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert_answered((done.returncode, done.stdout, done.stderr), *words)


@pytest.mark.parametrize("name", ["cache", "results"])
def test_a_file_in_the_place_of_a_folder_is_answered(run, tmp_path, name):
    data = write_set(tmp_path / "pets", 12)
    (tmp_path / "file").write_text("in the way")
    assert_answered(run("svm", data=data, **{name: tmp_path / "file"}), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_read_only_results_are_answered(run, command, cache, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    assert run("features", data=data)[0] == 0
    results = tmp_path / "results"
    results.mkdir(mode=0o555)
    done = as_user(command.line("svm", **SMALL, data=data, results=results), results)
    assert_answered_process(done, "Permission denied", "RESULTS=")


def test_no_room_for_the_results_is_answered_and_what_was_there_stays(run, command, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    assert run("features", data=data)[0] == 0

    def small_files() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    done = ran(command.line("svm", **SMALL, data=data), preexec_fn=small_files)
    assert_answered_process(done, "No space left")
    assert not list((tmp_path / "results").rglob("*.json"))
    code, _, err = run("svm", data=data)
    assert code == 0
    assert "All 12 images were there" in err


def test_a_foreign_hdf5_under_our_name_is_answered_and_left_alone(run, cache, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    assert run("features", data=data)[0] == 0
    path = next((cache / "pets").glob("*.h5"))
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros(3), dtype=np.float64)
    before = path.read_bytes()
    for stage in ("features", "svm"):
        assert_answered(run(stage, data=data), path.name, "move it away")
    assert path.read_bytes() == before


def test_half_a_download_of_a_codes_file_is_answered(run, cache, tmp_path):
    data = write_set(tmp_path / "pets", 12)
    assert run("features", data=data)[0] == 0
    path = next((cache / "pets").glob("*.h5"))
    path.write_bytes(path.read_bytes()[:-4000])
    assert_answered(run("svm", data=data), path.name, "remove it")


def test_what_needs_the_network_offline_is_answered(run):
    for stage in ("data", "svm"):
        outcome = run(stage, data="flowers", offline=1)
        assert_answered(outcome, "flowers", "OFFLINE=1")


def test_a_defect_of_ours_keeps_its_traceback_in_a_file(run, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("cnn_codes.codes.wanted.load_card", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run("features", data=write_set(tmp_path / "pets", 12))
    (file,) = tmp_path.glob("cnn-codes-traceback-*.txt")
    assert_answered(outcome, "ZeroDivisionError", str(file))
    assert "in broken" in file.read_text()


def test_the_parts_of_a_message_stand_one_a_line():
    error = PipelineError("It is so.", expected="otherwise", todo="this")
    assert str(error) == "It is so.\nExpected: otherwise\nNext: this"
    assert str(PipelineError("It is so.")) == "It is so."


# Output


def test_a_reader_that_goes_away_is_no_error():
    done = ran(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -m pipeline svm --help | head -1"]
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m pipeline svm")


SLOW_WORK = """
    import sys, time
    from cnn_codes.progress import terminal
    with terminal("codes", 30, "images") as meter:
        for _ in range(30):
            time.sleep(0.1)
            meter.advance()
    print("done")
    """


def test_progress_is_quiet_where_the_output_is_no_terminal():
    done = python(textwrap.dedent(SLOW_WORK), check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("columns", [100, 0])  # 0: a terminal that does not say how wide it is
def test_on_a_terminal_progress_tells_images_a_second_and_the_time_left(columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLOW_WORK)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown, began = b"", time.monotonic()
    while time.monotonic() - began < 60:
        try:
            some = os.read(ours, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not some:
            break
        shown += some
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"codes: +\d+%\|.*\| \d+/30 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+ images/s\]", text)


def test_help_says_what_every_setting_of_a_stage_does(capsys):
    for name, stage in STAGES.items():
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        for setting in stage.fields:
            assert f"--{setting.replace('_', '-')} " in text
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, stage in STAGES.items():
        assert name in text
        assert stage.help.split(",")[0][:30] in " ".join(text.split())


# The Makefile


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make without the settings that this process was given, by another make or a shell."""
    foreign = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", *settings_in_makefile())
    clean = {k: v for k, v in os.environ.items() if k not in foreign}
    return ran(["make", *arguments], env=clean | environment)


def settings_in_makefile() -> list[str]:
    return re.search(r"^SETTINGS := ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE).group(1).replace(
        "\\\n", " "
    ).split()  # fmt: skip


def test_the_makefile_hands_on_exactly_the_settings_that_there_are():
    classes = [
        value
        for name, value in vars(settings_module).items()
        if dataclasses.is_dataclass(value) and name.endswith("Settings")
    ]
    assert len(classes) >= 6
    fields = {field.name.upper() for cls in classes for field in dataclasses.fields(cls)}
    listed = settings_in_makefile()
    assert len(listed) == len(set(listed))
    assert set(listed) == fields
    taken = {name.upper() for stage in STAGES.values() for name in stage.fields}
    assert taken == fields  # and every one of them is some stage's


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_made(target):
    done = make("-n", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def test_every_stage_has_a_target_and_every_target_that_is_one_a_stage():
    assert set(STAGES) <= set(TARGETS)
    rules = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(TARGETS) == rules
    for target in set(TARGETS) & set(STAGES):
        assert f" -m pipeline {target}" in make("-n", target).stdout


def test_make_help_lists_every_target_and_every_setting_and_is_the_default():
    shown = make("help").stdout
    for target in TARGETS:
        assert re.search(rf"^  {target} +\S", shown, re.MULTILINE), target
    for setting in settings_in_makefile():
        assert re.search(rf"\b{setting}\b", shown)
    assert make().stdout == shown


@pytest.mark.parametrize("value", ["with space", "it's", 'say "x"', "a;b", "a&&b", "ü", "*", ""])
def test_values_reach_the_command_as_they_were_given(value):
    (line,) = [
        line
        for line in make("-n", "svm", f"DATA={value}", "SEED=3").stdout.splitlines()
        if " -m pipeline " in line
    ]
    given = shlex.split(line)[1:]
    assert given[:3] == ["-m", "pipeline", "svm"]
    assert sorted(given[3:]) == sorted([f"DATA={value}", "SEED=3"])


def test_a_misspelt_variable_is_handed_on_so_that_it_is_answered():
    done = make("svm", "VEIWS=flip", f"PY={sys.executable}", "-o", ".venv/.ready")
    assert done.returncode == 2
    assert "error: Unknown setting VEIWS." in done.stderr
    assert "Next: did you mean VIEWS=flip?" in done.stderr


def test_settings_of_the_shell_are_ignored_and_named():
    arguments = ("svm", "SEED=3", f"PY={sys.executable} -c pass", "-o", ".venv/.ready")
    done = make(*arguments, VIEWS="flip", MODEL="it's", EDITOR="vi")
    assert done.returncode == 0
    assert "ignored: MODEL VIEWS." in done.stderr
    assert "make svm MODEL=..." in done.stderr
    shown = make("-n", *arguments, VIEWS="flip").stdout
    assert "'SEED=3'" in shown
    assert "VIEWS=" not in shown.rpartition("-m pipeline")[2]
    quiet = make(*arguments)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_only_torch_default_or_cpu_can_be_set_up(tmp_path):
    assert "--index-url" in make("-n", "setup", "TORCH=cpu", f"VENV={tmp_path}/v").stdout
    assert "--index-url" not in make("-n", "setup", f"VENV={tmp_path}/v").stdout
    done = make("setup", "TORCH=gpu", f"VENV={tmp_path}/v")
    assert done.returncode == 2
    assert "TORCH=gpu is unknown. Expected: TORCH=default or TORCH=cpu." in done.stderr
    assert not (tmp_path / "v").exists()


def test_clean_keeps_results_and_cache_and_each_has_a_target_of_its_own():
    shown = make("-n", "clean", RESULTS="elsewhere").stdout
    assert "results" not in shown
    assert "cache" not in re.sub(r"\S*_cache|__pycache__", "", shown)
    assert make("-n", "clean-results", RESULTS="elsewhere").stdout == "rm -rf 'results'\n"
    assert make("-n", "clean-results", "RESULTS=a b").stdout == "rm -rf 'a b'\n"


def test_clean_cache_leaves_nothing_but_the_readme(run, tmp_path):
    cache = tmp_path / "own"
    write_set(tmp_path / "set", 8)
    assert run("features", data=tmp_path / "set", cache=cache)[0] == 0
    (cache / "README.md").write_text("the format")
    assert len(list(cache.iterdir())) > 2
    code, out, _ = run("clean-cache", cache=cache)
    assert code == 0
    assert re.search(r"removed [\d.]+ [kM]?B", out)
    assert [path.name for path in cache.iterdir()] == ["README.md"]
    assert run("clean-cache", cache=cache)[0] == 0
    assert run("clean-cache", cache=tmp_path / "nowhere")[0] == 0


def test_clean_cache_refuses_a_folder_in_use_or_not_of_its_own(run, tmp_path):
    cache = tmp_path / "own"
    write_set(tmp_path / "set", 8)
    run("features", data=tmp_path / "set", cache=cache)
    (lock,) = cache.glob("*/*.h5.parts/lock")
    before = sorted(cache.rglob("*"))
    with FileLock(lock):
        assert_refused(run("clean-cache", cache=cache), "A run is writing", "make clean-cache")
    (cache / "thesis").mkdir()
    assert_refused(run("clean-cache", cache=cache), "thesis", "Nothing was removed")
    (cache / "thesis").rmdir()
    assert sorted(cache.rglob("*")) == before
    assert_refused(run("clean-cache", cache=tmp_path), "is not part of a cache")


def assert_refused(outcome: tuple[int, str, str], *words: str) -> None:
    code, out, err = outcome
    assert (code, out) == (2, "")
    for word in words:
        assert word in err


def documented() -> list[tuple[str, str]]:
    """Give every command that the pages show: in indented blocks, in code spans, in recipes."""
    commands = []
    for page in [*ROOT.glob("*.md"), ROOT / "cache" / "README.md", *ROOT.glob("recipes/*.toml")]:
        text = page.read_text()
        found = re.findall(r"^    ((?:make|python -m pipeline)\b.*)$", text, re.MULTILINE)
        found += re.findall(r"^# ((?:make|python -m pipeline) .*)$", text, re.MULTILINE)
        found += re.findall(r"`((?:make|python -m pipeline)\s[^`]+)`", text)
        commands += [(page.name, " ".join(one.partition("#")[0].split())) for one in found]
    return sorted(set(commands))


@pytest.mark.parametrize(("page", "command"), documented())
def test_every_command_of_the_pages_is_one(page, command):
    command = re.sub(r"<[^>]*>", "x", command)  # what the reader has to fill in
    words = shlex.split(command)
    if words[0] == "make":
        names = [word for word in words[1:] if "=" not in word]
        assert names
        assert set(names) <= set(TARGETS)
        given = [word.partition("=")[0] for word in words[1:] if "=" in word]
        assert set(given) <= {*settings_in_makefile(), "PYTHON", "VENV", "TORCH"}
        stages = [name for name in names if name in STAGES]
        words = ["python", "-m", "pipeline", *stages[:1], *(w for w in words[1:] if "=" in w)]
        if not stages:
            return
    _, _, _, stage, *arguments = words
    names = STAGES[stage].fields
    if "--help" in arguments:
        return
    options = _parser().parse_args([stage, *assigned(arguments, names, names)])
    assert options.stage == stage


def test_names_of_files_and_classes_do_not_steer_the_terminal(tmp_path, capsys):
    name = "cat\x1b[2J\u202e"
    for kind in (name, "dog"):
        for i in range(3):
            folder = tmp_path / "pets\x1b]0;owned\x07" / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}\x1b[31m.jpg").write_bytes(jpeg(i + 10 * len(kind)))
    folder = tmp_path / "pets\x1b]0;owned\x07"
    main(["data", f"DATA={folder}", f"CACHE={tmp_path}/c", f"RESULTS={tmp_path}/r"])
    main(["svm", f"DATA={folder}/no\x1b[2Jwhere", f"CACHE={tmp_path}/c", f"RESULTS={tmp_path}/r"])
    said = "".join(capsys.readouterr())
    assert "cat" in said
    assert "where" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
