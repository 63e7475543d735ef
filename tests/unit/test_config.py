"""Run configurations: what ships is right, and what is wrong is named with its line."""

from pathlib import Path

import pytest

from semagent.config import check_parts, find_config, load_config
from semagent.errors import ConfigError
from semagent.registry import DRIVERS, names, options_schema
from semagent.types import Mode

SHIPPED = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
SUPPORTED = set(names(DRIVERS)) - {"zen-em"}
SIMULATED = find_config("simulated").read_text(encoding="utf-8")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    assert SIMULATED.count(old) == 1
    path = tmp_path / "microscope.yaml"
    path.write_text(SIMULATED.replace(old, new), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_configuration_that_ships_is_right(path: Path):
    config = load_config(path)
    assert config.instrument
    assert options_schema(DRIVERS, config.driver.name) is not None
    check_parts(path, config)


@pytest.mark.parametrize("name", sorted(SUPPORTED - {"recorded", "remote"}))
def test_every_driver_has_its_file(name: str):
    """A recorded stack is given to `simulate`; a remote microscope has the file of its driver."""
    path = find_config(name)
    config = load_config(path)
    assert config.driver.name == name
    assert config.safety.working_distance_m is not None
    assert config.control.mode is not Mode.HOLD, "it must not move anything unless asked to"
    assert not config.safety.allow_unblank or name == "simulated"
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if "#" in line]
    assert len(comments) >= 10


@pytest.mark.parametrize("name", sorted(SUPPORTED))
def test_every_driver_says_what_it_takes(name: str):
    assert options_schema(DRIVERS, name) is not None


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path):
    path = changed(tmp_path, "max_step: 5.0e-6", "max_step: 5e-6")
    limits = load_config(path).safety.beam_shift_m
    assert limits is not None
    assert limits.max_step == 5e-6


def test_integers_stay_integers():
    assert load_config(find_config("simulated")).driver.options["seed"] == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("  specimen_holder: simulated stub\n", "", "specimen_holder"),
        ("max_evidence_age_s: 10", "max_evidence_aeg_s: 10", "max_evidence_aeg_s"),
        ("{min: 0.004, max: 0.006, max_step", "{min: four, max: 0.006, max_step", "min"),
        ("{min: 0.004, max: 0.006, max_step", "{min: 4, max: 6, max_step", "metres"),
        ("semagent: 1 ", "semagent: 2 ", "format"),
        ("mode: advise", "mode: autopilot", "autopilot"),
        ("semagent: 1 ", "remembered: {}\nsemagent: 1 ", r"yaml:\d+: remembered: unknown key"),
        (
            "travel_window_s: 600",
            "travel_window_s: 600\n  travel_window_s: 60",
            r"yaml:\d+: travel_window_s: this key is given twice",
        ),
        ("instrument: Simulated SEM", "instrument: [", "not YAML"),
        ("instrument: Simulated SEM", "instrument: 2026-02-30", r"yaml:\d+: day "),
        ("travel_window_s: 600", "travel_window_s: 0x_", r"yaml:\d+: invalid literal for int"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, says: str):
    path = changed(tmp_path, old, new)
    with pytest.raises(ConfigError, match=says) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_the_line_is_named(tmp_path: Path):
    path = changed(tmp_path, "max_evidence_age_s: 10", "max_evidence_age_s: soon")
    line = 1 + path.read_text(encoding="utf-8").splitlines().index("  max_evidence_age_s: soon")
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert f"{path}:{line}:" in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("acquire.frame_timeout_s", "0"),
        ("acquire.frame_timeout_s", ".inf"),
        ("acquire.frame_timeout_s", "120000"),  # milliseconds
        ("acquire.frame_interval_s", "-1"),
        ("acquire.frame_interval_s", ".nan"),
        ("acquire.max_failures", "0"),
        ("infer.max_busy_s", "0"),
        ("infer.max_busy_s", ".nan"),
        ("infer.max_failures", "0"),
        ("infer.max_restarts", "-1"),
        ("record.wait_s", "-1"),
        ("record.wait_s", ".inf"),
    ],
)
def test_times_and_numbers_that_cannot_be_are_refused(tmp_path: Path, key: str, value: str):
    section, name = key.split(".")
    path = changed(tmp_path, "instrument:", f"{section}: {{{name}: {value}}}\ninstrument:")
    with pytest.raises(ConfigError, match=rf":\d+: {section}\.{name}: .*Expected"):
        load_config(path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("scale", "half_depth_m", "2"),  # micrometres
        ("scale", "assumed_half_depth_m", ".inf"),
        ("scale", "assumed_convergence_angle_rad", "5"),  # milliradians
        ("estimator", "prior_half_range", "1e300"),
        ("estimator", "slope_sigma", ".inf"),
        ("autofocus", "range_m", "50"),  # micrometres
        ("autofocus", "max_step_m", ".inf"),
        ("autofocus", "min_log_odds", ".nan"),
        ("deadlines", "task_s", ".inf"),
    ],
)
def test_what_control_could_not_reckon_with_is_refused(
    tmp_path: Path, section: str, key: str, value: str
):
    """It ended a search, which had moved focus, in the middle."""
    path = changed(tmp_path, "  mode: advise", f"  {section}: {{{key}: {value}}}\n  mode: advise")
    with pytest.raises(ConfigError, match=rf":\d+: control\.{section}\.{key}: .*Expected"):
        load_config(path)


@pytest.mark.parametrize(
    ("line", "wrong", "says"),
    [
        ("mode: advise", "mode: autopilot", "control.mode: 'autopilot': .*observe, advise, hold"),
        ("max_evidence_age_s: 10", "max_evidence_age_s: soon", r"'soon': Expected `float`"),
        (
            "max_evidence_age_s: 10",
            "max_evidence_aeg_s: 10",
            r"safety\.max_evidence_aeg_s: unknown key; did you mean max_evidence_age_s\?",
        ),
        ("name: simulated", "nmae: simulated", r"driver\.nmae: unknown key; did you mean name\?"),
        (
            "heartbeat_timeout_s: 2",
            "heartbeat_timeout_s: 2000",
            r"safety\.heartbeat_timeout_s: 2000 s: must be 0\.01 to 60 s",
        ),
        ("seed: 1", "seed: one", r"driver\.options\.seed: 'one': Expected `int`"),
        ("seed: 1", "sede: 1", r"driver\.options\.sede: unknown key; did you mean seed\?"),
        (
            "  name: onnxruntime  ",
            "  name: bluntness  ",
            r"engine\.name: no engine is called 'bluntness'",
        ),
        (
            "working_distance_m: {min: 0.004, ",
            "working_distance_m: {min: 0.0, ",
            r"safety\.working_distance_m\.min: 0 m: must be above 0 m",
        ),
        ("semagent: 1", "semagent: 2", "semagent: 2 is a format this release does not know"),
    ],
)
def test_check_names_line_key_value_and_what_is_allowed(
    tmp_path: Path, line: str, wrong: str, says: str
):
    path = changed(tmp_path, line, wrong)
    lines = path.read_text(encoding="utf-8").splitlines()
    (number,) = (index for index, each in enumerate(lines, 1) if wrong in each)
    with pytest.raises(ConfigError, match=says) as raised:
        check_parts(path, load_config(path))
    assert str(raised.value).startswith(f"{path}:{number}: ")


def test_a_rule_over_several_keys_names_the_line_of_the_one_it_is_about(tmp_path: Path):
    shipped = find_config("micromanager").read_text(encoding="utf-8")
    path = tmp_path / "microscope.yaml"
    path.write_text(shipped.replace("[-100, 100]", "[100, -100]"), encoding="utf-8")
    line = next(
        index
        for index, each in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "focus_range_um" in each
    )
    with pytest.raises(ConfigError, match="not a finite range") as raised:
        check_parts(path, load_config(path))
    assert f"{path}:{line}: driver.options.focus_range_um: " in str(raised.value)


def test_a_recorded_stack_may_count_from_anywhere(tmp_path: Path):
    path = changed(
        tmp_path, "working_distance_m: {min: 0.004, ", "working_distance_m: {min: -0.1, "
    )
    text = path.read_text(encoding="utf-8").replace("name: simulated", "name: recorded")
    path.write_text(text, encoding="utf-8")
    limits = load_config(path).safety.working_distance_m
    assert limits is not None
    assert limits.min == -0.1


@pytest.mark.parametrize("content", ["", "just words", "- a\n- list"])
def test_something_else_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "microscope.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"microscope\.yaml"):
        load_config(path)


def test_yaml_that_would_run_code_is_refused(tmp_path: Path):
    path = changed(tmp_path, "instrument: Simulated SEM", "instrument: !!python/name:os.system ''")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(path)


def test_a_name_finds_what_ships_and_a_path_finds_a_file(tmp_path: Path):
    assert find_config("simulated").name == "simulated.yaml"
    path = changed(tmp_path, "mode: advise", "mode: hold")
    assert find_config(str(path)) == path


def test_a_name_that_is_nothing_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"no such file.*simulated"):
        find_config("no-such-microscope")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_a_file_in_another_encoding_is_to_be_saved_as_utf_8(tmp_path: Path, encoding: str):
    path = tmp_path / "sem.yaml"
    path.write_text("instrument: Gerät", encoding=encoding)
    with pytest.raises(ConfigError, match=r"sem\.yaml: cannot be read: .*; save it as UTF-8"):
        load_config(path)
