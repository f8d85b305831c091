"""Which classes a recipe may name, and YAML that means harm."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from im2im_core import trust
from im2im_core.errors import ConfigError, Im2ImError, TrustError
from im2im_core.recipe import Recipe
from im2im_core.yamlfile import MAX_BYTES, parse_yaml, read_yaml

HOSTILE = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "posix.system",
    "shutil.rmtree",
    "importlib.import_module",
    "pickle.Unpickler",
    "ctypes.CDLL",
    "code.InteractiveConsole",
    "antigravity.webbrowser",
    "this.s",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torchevil.nn.Module",
    "torch.nnevil.Module",
    "monai.bundle.ConfigParser",
    "monai.utils.module.os.system",
    "monai.transforms.io.array.LoadImage",
    "im2im_core_evil.Network",
]
DOTTED = [
    "monai.networks.utils.os.system",
    "monai.losses.dice.warnings.catch_warnings",
    "torch.nn.modules.module.functools.partial",
    "torch.optim.optimizer.functools.partial",
    "im2im_core.files.os.system",
    "im2im_core.cli.sys.exit",
    "im2im_core.archive.zipfile.ZipFile",
    "im2im_core.__init__.import_module",
    "torch.nn.__builtins__.eval",
]
INDIRECT = [
    "im2im_core.files.contextmanager",
    "im2im_core.cli.import_module",
    "im2im_core.runs.Path",
    "torch.nn.modules.module.Any",
    "torch.nn.functional.relu",
]


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Package ``evil_package`` on the path that leaves a file when it is imported."""
    canary = tmp_path / "canary"
    (tmp_path / "evil_package.py").write_text(f"open({str(canary)!r}, 'w').close()\nclass Network: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil_package", raising=False)
    return canary


@pytest.mark.parametrize("class_path", HOSTILE)
def test_fault_32_class_path_is_refused_before_import(class_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(name: str) -> None:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(trust, "import_module", forbidden)
    with pytest.raises(TrustError) as caught:
        trust.resolve_class(class_path)
    assert caught.value.exit_code == 5


def test_fault_32_nothing_is_imported_in_a_fresh_interpreter(tmp_path: Path) -> None:
    names = ["antigravity", "this", "torch.hub", "monai", "code", "torch"]
    program = (
        "import sys\nfrom im2im_core.trust import resolve_class\nfrom im2im_core.errors import TrustError\n"
        f"for path in {HOSTILE!r}:\n"
        "    try:\n        resolve_class(path)\n        raise SystemExit(path)\n    except TrustError:\n        pass\n"
        f"assert not set({names!r}) & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("class_path", DOTTED + INDIRECT)
def test_fault_32_detours_through_allowed_modules_are_refused(class_path: str) -> None:
    with pytest.raises(Im2ImError, match=r"not a class|really|no module|no class|not the import path|not in a trusted"):
        trust.resolve_class(class_path)


@pytest.mark.parametrize("class_path", ["", "Network", "torch.nn.", ".torch.nn", "torch nn.Module", "torch.nn.Mod ule"])
def test_what_is_not_a_class_path_is_refused(class_path: str) -> None:
    with pytest.raises(TrustError, match="import path"):
        trust.require_trust(class_path)


def test_fault_32_untrusted_package_runs_only_after_consent(evil: Path) -> None:
    with pytest.raises(TrustError, match="--trust evil_package"):
        trust.resolve_class("evil_package.Network")
    assert not evil.exists()
    assert trust.resolve_class("evil_package.Network", trusted=["evil_package"]).__name__ == "Network"
    assert evil.exists()


def test_consent_is_recorded_for_the_user(evil: Path) -> None:
    assert trust.consented_modules() == ()
    trust.record_consent("evil_package")
    assert trust.consented_modules() == ("evil_package",)
    assert trust.resolve_class("evil_package.Network").__module__ == "evil_package"


def test_trust_of_a_process_reaches_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.ENVIRONMENT, "one")
    trust.trust_for_this_process(["two"])
    program = "from im2im_core.trust import consented_modules; print(*consented_modules())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["one", "two"]


def test_fault_36_code_of_a_model_package_is_trusted_by_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trust.ENVIRONMENT, "")
    trust.trust_for_this_process(["0a" * 32])
    assert trust.consented_modules() == ("0a" * 32,)
    with pytest.raises(ConfigError, match="not the name of a module"):
        trust.trust_for_this_process(["no module"])


def test_damaged_consent_is_not_taken_for_none() -> None:
    trust.record_consent("one")
    trust.consent_file().write_text("{")
    with pytest.raises(ConfigError, match="consent is then asked anew"):
        trust.consented_modules()


def test_shipped_classes_are_resolved_and_their_base_is_checked() -> None:
    from torch import nn

    assert trust.resolve_class("torch.nn.Conv2d", base=nn.Module) is nn.Conv2d
    assert trust.resolve_class("monai.networks.nets.SegResNet", base=nn.Module).__name__ == "SegResNet"
    with pytest.raises(ConfigError, match=r"is not a torch\.nn\.modules\.module\.Module"):
        trust.resolve_class("torch.optim.AdamW", base=nn.Module)
    with pytest.raises(ConfigError, match="Did you mean 'SegResNet'"):
        trust.resolve_class("monai.networks.nets.SegResNt")


def test_installed_entry_points_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    found = [EntryPoint("mine", "my_plugin.settings:MySettings", "im2im")]
    monkeypatch.setattr(trust, "entry_points", lambda group: found if group == "im2im" else [])
    trust.require_trust("my_plugin.engine.Network")
    with pytest.raises(TrustError):
        trust.require_trust("my_plugin_evil.Network")


class _Block:
    def __init__(self, width: int, depth: int = 1, reader: str = "", pretrained: bool = False) -> None: ...


class _Pretrained:
    def __init__(self, pretrained: bool = True) -> None: ...


_Block.__module__ = _Pretrained.__module__ = "monai.networks.toy"


def test_arguments_are_checked_against_the_signature() -> None:
    trust.check_arguments(_Block, {"width": 3, "depth": 2})
    trust.check_arguments(_Block, {"depth": 2}, supplied=["width"])
    with pytest.raises(ConfigError, match="Did you mean 'width'"):
        trust.check_arguments(_Block, {"widht": 3})
    with pytest.raises(ConfigError, match="needs width"):
        trust.check_arguments(_Block, {"depth": 3})


@pytest.mark.parametrize(
    "init_args",
    [
        {"width": 1, "reader": "ITKReader"},
        {"width": 1, "depth": "https://example.org/weights.pt"},
        {"width": 1, "depth": {"deep": ["/etc/passwd"]}},
        {"width": 1, "depth": "weights.PTH"},
        {"width": 1, "pretrained": True},
    ],
)
def test_fault_32_files_and_addresses_are_refused_as_arguments(init_args: dict[str, object]) -> None:
    with pytest.raises(TrustError):
        trust.check_arguments(_Block, init_args)


@pytest.mark.parametrize("name", ["use_checkpoint", "dropout_path_rate"])
def test_numbers_and_switches_name_no_file(name: str) -> None:
    class Net:
        def __init__(self, **settings: object) -> None: ...

    Net.__module__ = "monai.networks.toy"
    for value in (True, None, 2, 0.1, [0.1, 0.2]):
        trust.check_arguments(Net, {name: value})
    for text in ("a", ["a"], [0.1, "a"], {"a": 1}):
        with pytest.raises(TrustError, match=f"{name} names a file"):
            trust.check_arguments(Net, {name: text})


def test_weights_that_would_be_downloaded_by_default_are_refused() -> None:
    with pytest.raises(TrustError, match="pretrained: false"):
        trust.check_arguments(_Pretrained, {})
    trust.check_arguments(_Pretrained, {"pretrained": False})


def test_class_paths_are_found_at_any_depth() -> None:
    content = {"network": {"class_path": "a.B"}, "framework": {"losses": [{"class_path": "c.D"}, {"kind": "l1"}]}}
    assert list(trust.class_paths(content)) == ["a.B", "c.D"]


# ---- YAML ----

TAGS = [
    "!!python/object/apply:os.system ['touch canary']",
    "!!python/object:builtins.object {}",
    "!!python/name:os.system",
    "!!python/module:os",
    "a: !!python/object/new:subprocess.Popen [['touch', 'canary']]",
    "!unknown 3",
]


@pytest.mark.parametrize("text", TAGS)
def test_fault_33_python_tags_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrustError, match="tags are never loaded"):
        parse_yaml(text)
    assert not (tmp_path / "canary").exists()


@pytest.mark.timing
def test_fault_33_billion_laughs_is_refused_quickly() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    start = time.monotonic()
    with pytest.raises(TrustError, match="aliases"):
        parse_yaml("\n".join(lines))
    assert time.monotonic() - start < 5


@pytest.mark.timing
def test_fault_33_few_aliases_cannot_grow_without_bound() -> None:
    """Fewer than the allowed aliases, each doubling: shared, not copied, so that nothing grows."""
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    start = time.monotonic()
    content = parse_yaml("\n".join(lines))
    assert content["a39"][0] is content["a39"][1]
    assert time.monotonic() - start < 5


@pytest.mark.timing
def test_fault_33_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as handle:
        handle.truncate(100_000_000)
    start = time.monotonic()
    with pytest.raises(TrustError, match="100000000 bytes"):
        read_yaml(path)
    assert time.monotonic() - start < 1
    with pytest.raises(TrustError, match="characters"):
        parse_yaml("x" * (MAX_BYTES + 1))


@pytest.mark.parametrize("text", ["a: 1\na: 2", "b:\n  a: 1\n  c: 2\n  a: 3", "{a: 1, a: 1}"])
def test_fault_33_duplicate_keys_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="stands twice"):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text", ["? [a, b]\n: 1", "? {a: 1}\n: 2", "a: [", "\x00", "a: &a [*a]", "a: 2020-99-99", "!!int x", "--- 1\n--- 2"]
)
def test_fault_33_odd_yaml_never_raises_anything_else(text: str) -> None:
    try:
        parse_yaml(text)
    except (ConfigError, TrustError):
        pass


def test_fault_33_deep_nesting_is_refused() -> None:
    with pytest.raises(Im2ImError):
        parse_yaml("[" * 100_000)


@pytest.mark.parametrize("value", ["0x" + "f" * 6000, "9" * 4000, "x" * 100_000, "[" + "1, " * 10_000 + "1]"])
def test_fault_33_a_huge_value_gives_a_short_message(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.load(parse_yaml(f"data: {{dimensions: {value}}}"))
    assert len(str(caught.value)) < 1000
    assert "data.dimensions" in str(caught.value)


def test_plain_yaml_is_read() -> None:
    assert parse_yaml("a: [1, 2.5, x, null, true]") == {"a": [1, 2.5, "x", None, True]}


LIMITED = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from im2im_core.errors import Im2ImError
from im2im_core.yamlfile import parse_yaml

laughs = "\\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)])
payloads = [
    "a0: &a0 [lol]\\n" + laughs,
    "[" * 1_000_000,
    "{a: " * 100_000,
    "- " * 400_000,
    "a: " + "9" * 900_000,
    "a: 0x" + "f" * 900_000,
    "a: 1e" + "9" * 900_000,
    "? " * 100_000,
    "a: !!binary " + "A" * 900_000,
    "a: !!set {" + ", ".join(map(str, range(10_000))) + "}",
    "<<: *a\\n" * 1000,
    "a: &a {<<: *a}",
    "'" * 900_001,
    '"' + "\\\\x41" * 50_000 + '"',
    "%YAML 9.9\\n---\\na: 1",
    "%TAG ! tag:evil,2000:\\n---\\n!os.system [touch]",
    "--- \\n" * 100_000,
    "\\ufeff" * 1000 + "a: 1",
    "a: 1_" + "0_" * 400_000,
    "a: " + ":".join(["59"] * 20_000),
]
slowest = 0.0
for payload in payloads:
    start = time.process_time()
    try:
        parse_yaml(payload)
    except Im2ImError:
        pass
    slowest = max(slowest, time.process_time() - start)
    assert slowest < 30, payload[:40]
print(len(payloads), slowest)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_fault_33_twenty_payloads_within_a_gigabyte() -> None:
    """Each ends in an error for a person or in plain content, in little time and memory."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[0] == "20"
