"""The figures of the machine from sysfs trees written by the kernel's documentation: values or reasons."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import pytest
from sysfs_cases import plant, write

from edge_vision.diagnostics.sensors import SystemMeter, Unavailable
from edge_vision.diagnostics.sensors.gpu import GpuMeter
from edge_vision.diagnostics.sensors.tree import Tree
from edge_vision.nodes.monitoring.system_report import SystemReport

RAPL = "sys/class/powercap/intel-rapl:0/energy_uj"
STAT = "cpu  {0} 0 0 {1}\ncpu0 {0} 0 0 {1}"


def reason(value: object) -> str:
    assert isinstance(value, Unavailable), f"expected no figure, got {value!r}"
    return value.reason


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    return plant(tmp_path, "jetson_orin_nano")


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    return plant(tmp_path, "intel_laptop")


def test_the_figures_of_a_jetson(jetson: Path) -> None:
    meter = SystemMeter(jetson)
    meter.read(0.0)
    values = meter.read(2.0)
    assert values["power_w"] == pytest.approx(5.12) and values["power_source"] == "VDD_IN"
    assert values["energy_j"] == pytest.approx(10.24)
    assert values["power_w.VDD_SOC"] == pytest.approx(1.5336)
    assert not [key for key in values if "4" in key and key.startswith("power_w")]  # no volts, no rail
    assert values["temperature_c.max"] == 49.1 and values["temperature_c.gpu-thermal"] == 47.187
    assert "-256" in reason(values["temperature_c.cv0-thermal"])
    assert values["throttling"] == "no"  # a running fan does not count
    assert values["gpu.0.percent"] == 43.7 and "shares" in reason(values["gpu.0.memory_used_mb"])
    assert values["cpu.1.frequency_mhz"] == 729.6
    assert values["memory.percent"] == 50.0 and values["swap.percent"] == 25.0
    assert values["memory.total_mb"] == pytest.approx(7987.2)


def test_an_exceeded_limit_is_met_again_only_clearly_below_it(jetson: Path) -> None:
    """Otherwise a load at its limit alternates between WARN and OK."""
    report, limits = SystemReport(str(jetson)), {"max_cpu_percent": 100.0, "max_temperature_c": 100.0}
    found = [
        report.read({**limits, "max_power_w": 0.0, "max_memory_percent": limit}, None)[0]
        for limit in (52.0, 49.0, 52.0, 60.0, 52.0)
    ]
    assert [list(one) for one in found] == [[], ["max_memory_percent"], ["max_memory_percent"], [], []]
    assert found[2]["max_memory_percent"] == "memory 50 % is still within 10 % of max_memory_percent 52"


def test_active_passive_cooling_is_throttling(jetson: Path) -> None:
    meter = SystemMeter(jetson)
    write(jetson, "sys/class/thermal/cooling_device2/cur_state", "3")
    assert meter.read(0.0)["throttling"] == "devfreq-17000000.gpu at step 3"


def test_two_links_to_one_gpu_are_one_gpu(jetson: Path) -> None:
    (jetson / "sys/devices/gpu.0").symlink_to(jetson / "sys/devices/platform/bus@0/17000000.gpu")
    values = SystemMeter(jetson).read(0.0)
    assert values["gpu.0.percent"] == 43.7 and "gpu.1.percent" not in values


def test_power_across_a_wrap_of_the_rapl_counter(laptop: Path) -> None:
    meter = SystemMeter(laptop)
    assert reason(meter.read(0.0)["power_w"]) == "needs a second reading"
    write(laptop, RAPL, "19671150")  # 328850 to the end of the range, then on from 0
    values = meter.read(2.0)
    assert values["power_w"] == pytest.approx(10.0) and values["power_source"] == "rapl"
    assert values["power_w.package-0"] == pytest.approx(10.0)
    assert "power_w.core" not in values  # part of the package
    write(laptop, RAPL, "49671150")
    assert meter.read(4.0)["energy_j"] == pytest.approx(30.0)  # the second interval: the first has no start


def test_rapl_without_permission_is_unavailable(laptop: Path) -> None:
    (laptop / RAPL).unlink()
    (laptop / RAPL).mkdir()  # unreadable even for root
    values = SystemMeter(laptop).read(0.0)
    assert "intel-rapl:0/energy_uj" in reason(values["power_w.package-0"])
    assert reason(values["power_w"]) and reason(values["energy_j"])


def test_a_counter_that_jumps_back_without_a_range_is_unavailable(laptop: Path) -> None:
    meter = SystemMeter(laptop)
    meter.read(0.0)
    (laptop / "sys/class/powercap/intel-rapl:0/max_energy_range_uj").unlink()
    write(laptop, RAPL, "5")
    assert "jumped back" in reason(meter.read(1.0)["power_w.package-0"])


def test_the_battery_counts_while_it_discharges(laptop: Path) -> None:
    meter = SystemMeter(laptop)
    assert "charging" in reason(meter.read(0.0)["power_w.battery.BAT0"])
    write(laptop, "sys/class/power_supply/BAT0/status", "Discharging")
    values = meter.read(1.0)
    assert values["power_w"] == pytest.approx(18.0) and values["power_source"] == "battery"
    assert values["energy_j"] == 0.0  # another source: counted from now on
    write(laptop, "sys/class/power_supply/BAT0/power_now", "-20000000")  # negative in some drivers
    assert meter.read(2.0)["power_w"] == pytest.approx(20.0)


def test_throttling_is_counted_since_the_last_reading(laptop: Path) -> None:
    meter = SystemMeter(laptop)
    assert meter.read(0.0)["throttling"] == "no"
    write(laptop, "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "4")
    assert meter.read(1.0)["throttling"] == "thermal throttling of core 1"
    assert meter.read(2.0)["throttling"] == "no"


def test_sensors_of_the_same_name_are_numbered(laptop: Path) -> None:
    values = SystemMeter(laptop).read(0.0)
    assert values["temperature_c.Package_id_0"] == 61.0
    assert (values["temperature_c.coretemp"], values["temperature_c.coretemp.2"]) == (59.0, 58.0)


def test_throttling_of_a_raspberry_pi(tmp_path: Path) -> None:
    write(plant(tmp_path, "no_sensors"), "sys/devices/platform/soc/soc:firmware/get_throttled", "50005")
    assert SystemMeter(tmp_path).read(0.0)["throttling"] == "under-voltage, throttled"


def test_cpu_load(tmp_path: Path) -> None:
    meter = SystemMeter(tmp_path)
    assert "does not exist" in reason(meter.read()["cpu.percent"])
    for used, idle in ((100, 100), (130, 110)):
        write(tmp_path, "proc/stat", STAT.format(used, idle))
        values = meter.read()
    assert values["cpu.percent"] == values["cpu.0.percent"] == 75.0
    assert "did not move" in reason(meter.read()["cpu.percent"])
    write(tmp_path, "proc/stat", STAT.format(5, 5))
    assert "jumped back" in reason(meter.read()["cpu.percent"])
    write(tmp_path, "proc/stat", "cpu  1 2\ncpu0 x y z w\n")
    assert reason(meter.read()["cpu.percent"])


def test_missing_sensors_are_unavailable_and_not_zero(tmp_path: Path) -> None:
    values = SystemMeter(plant(tmp_path, "no_sensors")).read(0.0)
    for key in (
        "power_w",
        "power_source",
        "energy_j",
        "temperature_c.max",
        "throttling",
        "gpu",
        "swap.percent",
    ):
        assert reason(values[key]).startswith("no ")
    assert str(values["gpu"]) == "unavailable: no GPU that can be read"
    assert not [key for key, value in values.items() if value == 0]


@pytest.mark.parametrize("tree", ["jetson_orin_nano", "intel_laptop", "no_sensors"])
def test_sensors_may_vanish_and_come_back(tmp_path: Path, tree: str) -> None:
    root = plant(tmp_path / "root", tree)
    meter = SystemMeter(root)
    meter.read(0.0)
    shutil.move(root, tmp_path / "away")
    values = meter.read(1.0)
    assert values and all(isinstance(value, Unavailable) for value in values.values())
    shutil.move(tmp_path / "away", root)
    meter.read(2.0)
    assert meter.read(3.0)["memory.percent"] > 0  # type: ignore[operator]


def test_garbage_is_unavailable(jetson: Path) -> None:
    for file in [path for path in jetson.rglob("*") if path.is_file()]:
        file.write_bytes(b"\xff\x00garbage")
    values = SystemMeter(jetson).read(0.0)
    assert not [key for key, value in values.items() if isinstance(value, (int, float))]


class _NVMLError(Exception):
    pass


def nvml(**functions: object) -> types.ModuleType:
    """A fake of the NVML binding, which needs a GPU."""
    module = types.ModuleType("fake_nvml")
    module.__dict__.update(NVMLError=_NVMLError, NVML_TEMPERATURE_GPU=0, nvmlInit=lambda: None)
    module.__dict__.update(nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 1)
    module.__dict__.update(nvmlDeviceGetHandleByIndex=lambda n: n, **functions)
    return module


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def fail(card: int) -> None:
        raise _NVMLError("Not Supported")

    module = nvml(
        nvmlDeviceGetUtilizationRates=lambda card: types.SimpleNamespace(gpu=37),
        nvmlDeviceGetMemoryInfo=lambda card: types.SimpleNamespace(used=2e9, total=8e9),
        nvmlDeviceGetTemperature=lambda card, sensor: 55,
        nvmlDeviceGetPowerUsage=fail,
    )
    monkeypatch.setitem(sys.modules, "fake_nvml", module)
    write(tmp_path, "proc/driver/nvidia/version", "NVRM version: 570")
    return tmp_path


def test_figures_of_nvml(card: Path) -> None:
    meter = GpuMeter(Tree(card), "fake_nvml")
    values = meter.read()
    assert values["gpu.0.percent"] == 37.0 and values["gpu.0.temperature_c"] == 55.0
    assert (values["gpu.0.memory_used_mb"], values["gpu.0.memory_total_mb"]) == (2000.0, 8000.0)
    assert "Not Supported" in reason(values["gpu.0.power_w"])
    meter.close()


def test_a_gpu_that_is_lost_and_comes_back(card: Path) -> None:
    meter = GpuMeter(Tree(card), "fake_nvml")
    module = sys.modules["fake_nvml"]
    meter.read()

    def lost() -> int:
        raise _NVMLError("GPU is lost")

    module.nvmlDeviceGetCount, found = lost, module.nvmlDeviceGetCount
    assert "lost" in reason(meter.read()["gpu.0.percent"])
    module.nvmlDeviceGetCount = found
    assert meter.read()["gpu.0.percent"] == 37.0


def test_a_missing_binding_is_reported_with_the_command_that_installs_it(card: Path) -> None:
    values = GpuMeter(Tree(card), "no_such_binding").read()
    assert "pip install nvidia-ml-py" in reason(values["gpu"])
