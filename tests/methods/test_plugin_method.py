"""A tuning method of another package: its adapter loads again with `plugins`, and is refused without."""

import sys

import pytest

from motionexp.diffusion.schedule import Window
from motionexp.errors import InputError
from motionexp.methods.adapters import Recipe, check_adapter, find_method, load_adapter, save_adapter

PLUGIN = """
from motionexp.methods.lora import LoRA

class Mine(LoRA):
    pass
"""
RECIPE = Recipe(["a cat runs"], 0, 1, 1, 1e-3, 0.0, "adamw", {})


def test_an_adapter_of_a_plugin_s_method(backbone, tmp_path, monkeypatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    method = find_method("their_package.mine.Mine", ["their_package"])(backbone, Window(700), rank=2)
    path = save_adapter(tmp_path / "adapter", backbone, method, RECIPE)
    method.remove()
    check_adapter(path, plugins=["their_package"])
    loaded = load_adapter(path, backbone, plugins=["their_package"])
    assert (type(loaded), loaded.settings, loaded.name) == (type(method), method.settings, "mine")
    loaded.remove()
    for refused in (lambda: check_adapter(path), lambda: load_adapter(path, backbone)):
        with pytest.raises(InputError, match=r"their_package\.mine\.Mine.*plugins=\[their_package\]"):
            refused()
    monkeypatch.delitem(sys.modules, "their_package")
    monkeypatch.delitem(sys.modules, "their_package.mine")
