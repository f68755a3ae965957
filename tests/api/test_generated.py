"""What is generated: no drift, CRDs that an API server takes, a reference page that names everything."""

from __future__ import annotations

import re

import pytest
import yaml

from spillway_api.files import load
from spillway_api.generate import ROOT, drift, main, outputs
from spillway_api.schema import KINDS, crd, structural

PAGE = outputs()["docs/reference.md"]


def test_the_files_in_the_repository_are_what_the_types_say():
    assert drift(ROOT) == ""


def test_check_shows_a_diff_and_fails_until_generate_has_run(tmp_path, capsys):
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    path = tmp_path / "crds" / "spillway.dev_modelpools.yaml"
    path.write_text(path.read_text().replace("maximum: 4096", "maximum: 4097"))
    capsys.readouterr()
    assert main(["--check", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "-                        maximum: 4097" in said
    assert "+                        maximum: 4096" in said
    assert "make generate" in said


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_yaml_holds_the_crd_and_no_anchors(kind):
    text = outputs()[f"crds/spillway.dev_{KINDS[kind].plural}.yaml"]
    assert yaml.safe_load(text) == crd(kind)
    assert not re.search(r"[&*]id\d", text)


def _schemas(schema, path=""):
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from _schemas(inner, f"{path}.{name}".removeprefix("."))
    if "items" in schema:
        yield from _schemas(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _schemas(schema["additionalProperties"], f"{path}[]")


@pytest.mark.parametrize("kind", list(KINDS))
def test_everything_is_bounded_so_that_cel_stays_within_its_cost(kind):
    for path, schema in _schemas(structural(kind)["properties"]["spec"]):
        words = "x-kubernetes-int-or-string" in schema or schema["type"] == "string"
        assert not words or "enum" in schema or "maxLength" in schema, path
        assert "additionalProperties" not in schema or "maxProperties" in schema, path
        if "items" in schema:
            assert "maxItems" in schema, path
            assert "x-kubernetes-list-type" in schema, path


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_the_api_server_refuses_of_a_schema(kind):
    for path, schema in _schemas(structural(kind)):
        assert ("type" in schema) != ("x-kubernetes-int-or-string" in schema), path
        assert not {"properties", "additionalProperties"} <= set(schema), path


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_rule_stands_at_the_entries_of_a_map(kind):
    """`validate` does not look for any there; the API server writes their place in another way than all others."""
    for path, schema in _schemas(structural(kind)):
        if "additionalProperties" in schema:
            inside = [inner for _, inner in _schemas(schema["additionalProperties"])]
            assert not any("x-kubernetes-validations" in inner for inner in inside), path


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_field_has_a_description_that_is_a_sentence(kind):
    for path, schema in _schemas(structural(kind)):
        inside_a_list_of_plain_values = path.endswith("[]") and "properties" not in schema
        if path != "metadata" and not inside_a_list_of_plain_values:
            assert re.fullmatch(r"[A-Zas].*[.)]", schema.get("description", "")), path


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_default_whose_rules_compare_fields_writes_them_out(kind):
    """The API server refuses a CRD whose default cannot be evaluated before nested defaults are filled in."""
    for path, schema in _schemas(structural(kind)):
        if "properties" in schema and "default" in schema:
            read = {
                name
                for rule in schema.get("x-kubernetes-validations", ())
                for name in re.findall(r"self\.(\w+)", rule["rule"])
            }
            assert set(schema["default"]) == {name for name in read if "default" in schema["properties"][name]}, path


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_reference_names_every_field_with_bounds_default_and_rules(kind):
    page = PAGE[PAGE.index(f"\n## {kind}\n") :]
    for path, schema in _schemas(structural(kind)):
        for name, inner in schema.get("properties", {}).items():
            if not path.startswith(("spec", "status")):
                continue
            section = page[page.index(f"### {kind} {path}\n") :].split("\n### ")[0]
            row = next(line for line in section.splitlines() if re.match(rf"\| (\[`|`){name}`", line))
            for bound in ("minimum", "maximum", "maxItems"):
                if bound in inner:
                    assert str(inner[bound]) in row, (path, name, bound)
            for choice in inner.get("enum", ()):
                assert f"`{choice}`" in row
            if name in schema.get("required", ()):
                assert "**required**" in row
            elif "default" in inner and inner["type"] not in ("object", "array"):
                assert re.search(r"\| `.+` \|", row), (path, name)
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule["message"] in page, (path, rule["message"])


def test_links_of_the_reference_lead_somewhere():
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links <= anchors


def test_examples_of_the_reference_are_accepted(tmp_path):
    examples = [text for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if text.startswith("apiVersion")]
    assert len(examples) == len(KINDS)
    for index, text in enumerate(examples):
        (tmp_path / f"{index}.yaml").write_text(text)
    assert load([tmp_path]).problems == ()


def test_the_outline_of_the_reference_is_yaml():
    for text in re.findall(r"```yaml\n(spec:.*?)```", PAGE, re.DOTALL):
        assert set(yaml.safe_load(text)["spec"]) in [
            set(structural(kind)["properties"]["spec"]["properties"]) for kind in KINDS
        ]


COLUMNS = {
    "ModelPool": "Source Engine Endpoints Metrics Ready Reason Models Routes Budget Age",
    "RoutePolicy": "Models Tiers Spilling Ready Reason Budget Gateways Age",
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_kubectl_get_shows_these_columns(kind):
    version = crd(kind)["spec"]["versions"][0]
    assert " ".join(column["name"] for column in version["additionalPrinterColumns"]) == COLUMNS[kind]
    status = structural(kind)["properties"]["status"]["properties"]
    for column in version["additionalPrinterColumns"]:
        field = re.match(r"\.status\.(\w+)", column["jsonPath"])
        assert "[*]" not in column["jsonPath"]
        assert field is None or field[1] in status
