"""The metrics of the folder: what their files say, read without torch."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from motionexp.config import metrics
from motionexp.config.metrics import METRICS, check_metrics, chosen_metrics, find_metric, measurable
from motionexp.errors import InputError
from motionexp.results.layout import standard_columns

PLUGIN = """\
\"\"\"How bright is the sample?\"\"\"
from motionexp.metrics import base

class Helper:
    version = 3

class Glow(base.VideoMetric):
    version = 1
    values = {"glow": None}
    needs = NEEDS

    def measure(self, inputs):
        return {"glow": base.Measurement(float(inputs.frames.mean()))}
"""


def test_what_a_file_says_is_what_its_class_says():
    measured = [value for spec in METRICS.values() for value in spec.values]
    assert len(measured) == len(set(measured))
    for spec in METRICS.values():
        kind = getattr(import_module(spec.module), spec.class_name)
        assert spec.name == kind.__module__.rpartition(".")[2]
        assert (dict(spec.values), spec.needs) == (dict(kind.values), kind.needs)
        assert kind.version >= 1
        assert set(spec.summary) <= set(spec.values)
        for column in spec.columns.values():
            assert column["metric"] in spec.values
            assert column.get("minus", "base") in {"base", *spec.values}


def test_the_order_of_metrics_is_that_of_the_tables_columns():
    assert list(standard_columns()) == [
        "text", "consistency", "pick", "motion", "flow", "replaced", "nuisances",
        "fidelity", "fidelity_chance", "ditflow", "ditflow_chance", "subject",
    ]  # fmt: skip
    assert METRICS["nuisances"].subtracted("nuisance_similarity") == "nuisance_chance"
    assert METRICS["replaced_attributes"].subtracted("replaced_attributes") == ""


def test_jobs_and_probes_measure_their_own():
    jobs, probes = ({spec.name for spec in chosen_metrics(None, use)} for use in ("jobs", "probes"))
    assert probes == {"text_alignment", "flow_similarity", "trajectory", "attribute_readings"}
    assert jobs == set(METRICS) - {"attribute_readings", "subject_consistency"}
    assert {spec.name for spec in measurable()} - jobs == {"subject_consistency"}
    assert metrics.set_metrics(METRICS) == ["motion_diversity"]
    assert metrics.needs_chance_references(None)
    assert not metrics.needs_chance_references(["text_alignment", "flow_similarity"])


@pytest.mark.parametrize("name", ["flow", "attribute_readings", "motionexp.metrics.nothing.Nothing", "a.b.C"])
def test_a_name_that_is_no_metric_of_a_job_is_refused(name):
    (problem,) = metrics.metric_problems([name])
    assert f"metrics=[{name}]" in problem
    with pytest.raises(InputError, match="flow_similarity"):
        check_metrics([name])


def test_metrics_from_ground_truth_are_refused_where_a_reference_has_none():
    check_metrics(["trajectory"])
    check_metrics(None, ["a"])
    with pytest.raises(InputError, match=r"metrics=\[trajectory\]"):
        check_metrics(["flow_similarity", "trajectory"], ["a"])


def test_a_plugin_s_metric_is_named_by_its_import_path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "glow_plugin.py").write_text(PLUGIN.replace("NEEDS", '("clip",)'))
    spec = find_metric("glow_plugin.Glow")
    assert (spec.needs, spec.values, spec.of_sets) == (("clip",), {"glow": None}, False)
    assert spec.question == "How bright is the sample?"
    assert find_metric("glow_plugin.Helper") is None
    assert [spec.name for spec in chosen_metrics(["glow_plugin.Glow"])] == ["glow_plugin.Glow"]
    assert "glow_plugin" not in sys.modules


def test_what_is_no_literal_is_named(tmp_path):
    file = tmp_path / "glow.py"
    file.write_text(PLUGIN.replace("NEEDS", "tuple(['clip'])"))
    with pytest.raises(InputError, match=r"Glow\.needs"):
        metrics.read_metric(file, "glow", "glow")


def test_no_metric_imports_another():
    for spec in METRICS.values():
        tree = ast.parse((metrics.FOLDER / f"{spec.name}.py").read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not modules & {module.module for module in METRICS.values()}, spec.name


def test_every_metric_has_its_test_and_its_line_in_the_documents():
    root = Path(__file__).parents[2]
    documented = (root / "docs" / "scores.md").read_text()
    for spec in METRICS.values():
        assert (root / "tests" / "metrics" / f"test_{spec.name}.py").is_file()
        assert any(f"`{value}" in documented for value in spec.values), spec.name


def test_metrics_are_known_without_torch():
    code = (
        "import sys; from motionexp.config.metrics import check_metrics\n"
        "check_metrics(['nuisances', 'mf_ditflow'])\n"
        "assert not {'torch', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
