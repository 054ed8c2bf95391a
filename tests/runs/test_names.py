"""What a user would lose: files outside of the runs folder, to a name or a link that leads out of it."""

import pytest
from hostile_inputs import sentence

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.runs.folder import check_name, find_run_folder, new_run_folder, run_names

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails

HOSTILE_NAMES = [
    *(
        "",
        ".",
        "..",
        "../up",
        "a/../../b",
        "/etc",
        "a\\b",
        "a\0b",
        ".hidden",
        ".reserve",
        "~root",
        "-rf",
        "a b",
        "a\nb",
        "$HOME",
        "%2e%2e",
        "a:b",
        "a|b",
        "*",
    ),
    *("CON", "con", "nul", "NUL.txt", "Aux", "PRN.1", "COM1", "com9.log", "LPT1", "trailing."),
    *(
        "\uff41\uff42",
        "\u0430dmin",
        "run\u200b1",
        "run\u202etxt",
        "e\u0301",
        "\u2024\u2024",
        "\u2215etc",
        "ｒｕｎ",
        "run\ufeff",
        "\ud800",
    ),
    *("x" * 101, "x" * 1_000_000, "../" * 300_000),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_a_hostile_name_makes_no_folder_and_finds_none(name, tmp_path):
    """A run is a folder that is written, copied and deleted by its name."""
    root = tmp_path / "deep" / "runs"
    with pytest.raises(WorkbenchError) as error:
        new_run_folder(root, name, "stem")
    assert "run.name" in sentence(error)
    assert not root.exists()
    with pytest.raises(WorkbenchError) as error:
        find_run_folder(name, root)
    assert "There is no run" in sentence(error)
    assert sorted(path.name for path in tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", [None, 7, b"bytes", ["a"]])
def test_a_name_that_is_no_text_is_refused(name):
    """Neither a traceback nor a folder called None."""
    with pytest.raises(WorkbenchError, match="run.name = .* is not usable"):
        check_name(name)
    with pytest.raises(WorkbenchError, match="A run is named by a text or a path"):
        find_run_folder(name)


@pytest.mark.parametrize("name", ["console", "con-1", "nulls", "auxiliary", "com10", "x.con", "prn1", "a.b"])
def test_names_that_only_begin_like_a_device_are_fine(name):
    """Half of the dictionary must not be forbidden."""
    assert check_name(name) == name


def make_run(path):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("")
    return path


def test_a_link_out_of_the_root_is_no_run(tmp_path):
    """Whoever may put a link among the runs could have another folder written to, listed, or removed."""
    root, elsewhere = tmp_path / "runs", make_run(tmp_path / "elsewhere" / "one")
    make_run(root / "real")
    (root / "linked").symlink_to(elsewhere)
    (root / "circle").symlink_to(root / "circle")
    assert run_names(root) == ["real"]
    with pytest.raises(WorkbenchError) as error:
        find_run_folder("linked", root)
    assert "is a link to" in sentence(error)
    assert str(elsewhere) in str(error.value)
    with pytest.raises(WorkbenchError, match="is a link to"):
        find_run_folder(root / "linked")
    with pytest.raises(WorkbenchError, match="There is a run 'linked'"):
        new_run_folder(root, "linked", "stem")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["config.yaml"]
    assert find_run_folder(elsewhere).path == elsewhere  # the folder itself may be anywhere


def test_a_root_that_is_a_link_is_the_users_own_choice(tmp_path):
    """Runs often lie on a bigger disk, and a name for the newest one is handy."""
    make_run(tmp_path / "disk" / "one")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "latest").symlink_to("one")
    assert find_run_folder("one", tmp_path / "runs").name == "one"
    assert find_run_folder("latest", tmp_path / "runs").name == "latest"
    assert sorted(run_names(tmp_path / "runs")) == ["latest", "one"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt", "config.yaml", "status.json"])
def test_a_file_of_a_run_that_is_a_link_is_refused(name, tmp_path):
    """A run folder that was unpacked from an archive could append its log to the user's .bashrc."""
    folder, victim = make_run(tmp_path / "runs" / "one"), tmp_path / "victim"
    victim.write_text("")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(WorkbenchError) as error:
        find_run_folder("one", tmp_path / "runs")
    assert f"{name} in the run folder" in sentence(error)
