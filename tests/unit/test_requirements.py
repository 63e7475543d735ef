"""What is missing on this machine, and how people are told."""

from semagent import registry
from semagent.requirements import (
    ComServer,
    DriverFacts,
    OperatingSystem,
    PythonPackage,
    explain,
)


def test_packages_are_found_without_importing_them():
    assert PythonPackage("numpy", get="").is_met()
    assert not PythonPackage("no_such_vendor", get="").is_met()
    assert not PythonPackage("no_such_vendor.sdk", get="").is_met()


def test_what_windows_alone_has_is_missing_elsewhere(monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert not ComServer("CZ.EMApiCtrl.1", get="").is_met()
    assert OperatingSystem("Linux", get="").is_met()
    assert not OperatingSystem("Windows", get="").is_met()


def test_people_are_told_what_and_how():
    facts = DriverFacts(
        verified_on=None,
        requirements=(
            PythonPackage("numpy", get="pip install numpy"),
            PythonPackage("no_such_vendor", get="it is on the vendor's disc"),
        ),
    )
    assert explain("driver ours", facts.missing()) == (
        "driver ours needs what is not here: "
        "Python package no_such_vendor (it is on the vendor's disc)"
    )


def test_every_driver_that_ships_states_its_facts():
    for name in registry.names(registry.DRIVERS):
        if registry.find(registry.DRIVERS, name).module.startswith("semagent_drivers."):
            assert registry.driver_facts(name) is not None, name
