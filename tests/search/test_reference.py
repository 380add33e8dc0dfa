"""The reference and the schema of nas.yaml are those of the code, and the shipped files obey them."""

import json
import re

import jsonschema
import pytest
import yaml

from cluster.settings.source import SettingsError
from search.settings.config import StudyConfig, load_study_config
from search.settings.reference import DOCS_FILE, ROOT, SCHEMA_FILE, json_schema, with_reference

FILES = [ROOT / "nas.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
RENEW = "run `python -m search.settings.reference`"


def test_the_schema_is_current():
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema(), RENEW


def test_the_reference_is_current():
    text = DOCS_FILE.read_text()
    assert with_reference(text) == text, RENEW


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_shipped_files_obey_the_schema_and_the_checks(file):
    jsonschema.validate(yaml.safe_load(file.read_text()), json_schema())
    load_study_config(file)


@pytest.mark.parametrize(
    "wrong", [{"bugdet": {}}, {"space": {"encodr": ["vgg19"]}}, {"budget": {"trials": 0}}, {"pools": ["v100"]}]
)
def test_the_schema_refuses_what_the_checks_refuse(wrong):
    study = {"data": {"shards": "x"}, "space": {"encoder": ["vgg19"]}, **wrong}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(study, json_schema())


def test_every_key_has_a_meaning():
    rows = [line.split(" | ") for line in DOCS_FILE.read_text().splitlines() if line.startswith("| `")]
    generated = [row for row in rows if len(row) == 4]
    assert len(generated) > 80
    assert [row[0] for row in generated if row[3].strip(" |") == ""] == []


def test_the_example_of_mistakes_is_what_is_printed(tmp_path, monkeypatch):
    example = re.search(r"```\n(study\.yaml has .*?)```", DOCS_FILE.read_text(), re.S)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(
        "data:\n  build:\n    size_px: 100\nspace:\n  encodr: [vgg19]\n  learning_rate: {low: 0.01, high: 0.001}\n"
        "  momentum: {low: 0.8, high: 0.9, when: {optimiser: sdg}}\n  optimiser: [adam, sgd]\n"
        "budget: {trials: 0}\npools: [v100]\n"
    )
    with pytest.raises(SettingsError) as caught:
        load_study_config("study.yaml")
    assert str(caught.value) == example[1].strip()


def test_the_example_of_the_paper_is_the_papers():
    config = load_study_config(ROOT / "configs" / "paper.yaml")
    assert isinstance(config, StudyConfig)
    assert config.data.build is not None and config.data.build.size_px == 224
    assert [p.name for p in config.pools] == ["p100", "t4x2"]
    assert config.placement_rule.rule == "by_size"
