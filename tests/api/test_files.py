"""Files: exact lines, every refusal, what is read and what is left alone."""

from __future__ import annotations

import textwrap

import pytest

from spillway_api.files import MAX_BYTES, FileProblem, load, name_of

HEAD = "apiVersion: spillway.dev/v1alpha1\nkind: ModelPool\n"
POOL = HEAD + textwrap.dedent("""\
    metadata: {name: llama}
    spec:
      models:
      - name: llama-8b
      source:
        static:
          endpoints:
          - {name: a, url: "http://10.0.0.1:8000"}
    """)


@pytest.fixture
def problems(tmp_path):
    """The problems of a text, each without the name of the file."""

    def check(text, name="pool.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return [str(problem).removeprefix(f"{tmp_path / name}:") for problem in load([tmp_path / name]).problems]

    return check


def test_a_good_file_has_objects_and_no_problems(tmp_path):
    (tmp_path / "pool.yaml").write_text(POOL)
    loaded = load([tmp_path / "pool.yaml"])
    assert loaded.problems == loaded.skipped == ()
    assert [name_of(item) for item in loaded.objects] == ["ModelPool/default/llama"]
    assert loaded.objects[0].spec.models[0].name == "llama-8b"


def test_a_problem_reads_as_one_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(POOL.replace("source:\n    static:\n      endpoints:\n      - {", "source: {}\n# {"))
    (problem,) = load([path]).problems
    message = 'Invalid value: "object": exactly one of pods, service, inferencePool, static, provider must be set'
    assert problem == FileProblem(str(path), 7, 3, "spec.source", message, "ModelPool/default/llama")
    assert str(problem) == f"{path}:7:3: ModelPool/default/llama: spec.source: {message}"


MANY = (
    HEAD
    + """\
metadata:
  name: llama
spec:
  models:
  - name: llama 8b
  - nam: other
  source:
    static:
      endpoints:
      - name: a
        url: http://10.0.0.1:8000
        weight: "5"
      - {name: a, url: ftp://there}
  disptch:
    strategy: RoundRobin
  metrics:
    mode: off
    interval: 10s
"""
)


def test_every_problem_has_its_line_and_what_would_be_right(problems):
    name = "ModelPool/default/llama"
    endpoints = "spec.source.static.endpoints"
    assert problems(MANY) == [
        f'7:5: {name}: spec.models[0].name: Invalid value: "llama 8b": spec.models[0].name in body should match '
        "'^[^\\s*?]+$' (no spaces, no * and no ?)",
        f'8:5: {name}: spec.models[1].nam: unknown field "spec.models[1].nam" (did you mean "name"?)',
        f"8:5: {name}: spec.models[1].name: Required value (Name that routes and clients use)",
        f'14:9: {name}: {endpoints}[0].weight: Invalid value: "string": {endpoints}[0].weight in body must be of '
        'type integer: "string" (write a whole number, without quotes)',
        f'15:9: {name}: {endpoints}[1]: Duplicate value: {{"name":"a"}}',
        f'15:19: {name}: {endpoints}[1].url: Invalid value: "string": must be an absolute http or https URL',
        f'16:3: {name}: spec.disptch: unknown field "spec.disptch" (did you mean "dispatch"?)',
        f'18:3: {name}: spec.metrics: Invalid value: "object": staleAfter must not be shorter than interval',
        f'19:5: {name}: spec.metrics.mode: Invalid value: "boolean": spec.metrics.mode in body must be of type '
        'string: "boolean" (one of Auto, Prometheus, None)',
    ]


HEADS = [
    ("kind: ModelPool\n", '1:1: apiVersion: Required value (supported values: "spillway.dev/v1alpha1")'),
    (
        "apiVersion: spillway.dev/v1\nkind: ModelPool\n",
        '1:1: apiVersion: Unsupported value: "spillway.dev/v1": supported values: "spillway.dev/v1alpha1"',
    ),
    (
        "apiVersion: spilway.dev/v1alpha1\nkind: RoutePolicy\n",
        '1:1: apiVersion: Unsupported value: "spilway.dev/v1alpha1": supported values: "spillway.dev/v1alpha1"',
    ),
    (
        "apiVersion: spillway.dev/v1alpha1\nkind: ModelPol\n",
        '2:1: kind: Unsupported value: "ModelPol": supported values: "ModelPool", "RoutePolicy" '
        '(did you mean "ModelPool"?)',
    ),
    ("apiVersion: 1\nkind: ModelPool\n", "1:1: apiVersion: Invalid value: apiVersion in body must be of type string"),
    ("- a\n- b\n", "1:1: not an object (a document has the fields apiVersion, kind, metadata and spec)"),
    ("just text\n", "1:1: not an object"),
    (HEAD + "spec: {}\n", "1:1: metadata.name: Required value: name is required"),
    (HEAD + "metadata: {}\n", "3:1: metadata.name: Required value: name is required"),
    (HEAD + "metadata: {name: Big}\n", '3:12: ModelPool/default/Big: metadata.name: Invalid value: "Big": a lowercase'),
    (HEAD + "metadata: {generateName: a-}\n", "3:1: metadata.name: Required value: name is required (generateName"),
]


@pytest.mark.parametrize(("text", "expected"), HEADS, ids=[expected[:50] for _, expected in HEADS])
def test_what_an_object_must_begin_with(text, expected, problems):
    assert any(problem.startswith(expected) for problem in problems(text))


SYNTAX = [
    ("a:\n\tb: 1\n", "2:1: not YAML: ", "indent with spaces, not tabs"),
    ("a: b: c\n", "1:5: not YAML: mapping values are not allowed", "quote text that holds a colon"),
    ("a: [1, 2\n", "2:1: not YAML: while parsing a flow sequence", ""),
    ("a: 'open\n", ":", "not YAML: while scanning a quoted scalar"),
    ("a: \x01\n", ":1: not YAML: ", "control characters are not allowed"),
    ("a: *nowhere\n", "1:4: unknown alias *nowhere", "its anchor &nowhere must stand before it"),
    ("a: &a [*a]\n", "1:8: unknown alias *a", "and not around it"),
    ("[" * 65, "1:65: nested deeper than 64 levels", ""),
    ("{" * 100_000, "nested deeper than 64 levels", ""),
    ("a: &a [1]\n<<: *a\n", "2:1: << must name a mapping", "such as <<: *anchor"),
    ("a: !secret x\n", "1:4: unknown tag !secret", "write the value without a tag"),
    ("a: !!int x\n", "1:4: a value that is not of the type that its tag !!int says", ""),
    ("a: 1\nb: 2\na: 3\n", '3:1: duplicate key "a"', "it stands in line 1 already"),
    ("on: 1\n", "1:1: a key that is not text: YAML reads it as true", "quote it"),
    ("no: 1\n", "1:1: a key that is not text: YAML reads it as false", "quote it"),
    ("? [a]\n: 1\n", "1:3: a key that is not text: YAML reads it as a list or mapping", "keys are plain names"),
    ("8080: 1\n", "1:1: a key that is not text: YAML reads it as 8080", "quote it"),
]


@pytest.mark.parametrize(("text", "begins", "holds"), SYNTAX, ids=[row[0][:20] for row in SYNTAX])
def test_flaws_of_the_text_itself(text, begins, holds, problems):
    assert any(begins in problem and holds in problem for problem in problems(text))


def test_aliases_cannot_make_a_file_explode(problems):
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 10)]
    (problem,) = problems("\n".join(layers))
    assert problem.startswith("6:")
    assert "more than 200000 values in one document" in problem


def test_aliases_and_merges_are_read_and_keep_their_places(problems, tmp_path):
    text = POOL.replace("models:", "models: &models") + "---\n" + HEAD + "metadata: {name: second}\nspec:\n"
    assert "unknown alias *models" in problems(text + "  models: *models\n")[0]  # of another document
    shared = "x: &x {name: a, url: 'http://a:1/'}\n"
    text = (
        HEAD
        + shared
        + "metadata: {name: p}\nspec:\n  models: [{name: m}]\n"
        + "  source: {static: {endpoints: [*x, {<<: *x, name: b}]}}\n"
    )
    assert problems(text) == [
        '3:1: ModelPool/default/p: x: unknown field "x" (the fields here are apiVersion, kind, metadata, spec, status)'
    ]


def test_values_are_read_as_kubectl_reads_them():
    from spillway_api.yamldoc import resolve

    texts = {
        "y": True, "n": False, "Off": False, "ON": True, "~": None, "": None, "Null": None, "0o17": 15, "017": 15,
        "08": 8, "1_000": 1000, "1:30": "1:30", "1e3": 1000, "0x1F": 31, ".5": 0.5, "+1": 1, "2001-01-01": "2001-01-01",
        "1.": 1, "0b11": 3, "-0x1": -1, "nan": "nan", "=": "=", "12e03": 12000, "0x": "0x", "1_0.5": 10.5, "-5": -5,
        "1m30s": "1m30s", "99999999999999999999": 1e20, "9" * 400: float("inf"), "-.inf": float("-inf"),
    }  # fmt: skip
    assert {text: resolve(text) for text in texts} == texts
    assert all(type(resolve(text)) is type(value) for text, value in texts.items())


def test_documents_of_other_apis_are_left_alone_whatever_is_in_them(tmp_path):
    (tmp_path / "all.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\non: 1\na: 1\na: 2\n---\n"
        + POOL
        + "---\n# nothing here\n---\napiVersion: v1\nkind: Service\nmetadata: {name: x}\n"
    )
    loaded = load([tmp_path])
    assert loaded.problems == ()
    assert len(loaded.objects) == 1
    assert [(note.line, note.message) for note in loaded.skipped] == [
        (1, "apps/v1 Deployment is not of spillway.dev"),
        (20, "v1 Service is not of spillway.dev"),
    ]


def test_one_bad_document_does_not_hide_the_next(problems, tmp_path):
    (found,) = problems(HEAD + "metadata: {name: bad}\nspec: 5\n---\n" + POOL)
    assert found.startswith("4:1: ModelPool/default/bad: spec: ")
    assert len(load([tmp_path / "pool.yaml"]).objects) == 1


def test_a_list_as_kubectl_prints_it(tmp_path):
    item = textwrap.indent(POOL.replace("metadata: {", "metadata: {creationTimestamp: null, uid: x, "), "  ")
    (tmp_path / "list.yaml").write_text("apiVersion: v1\nkind: List\nitems:\n- " + item[2:] + "  status: {x: 1}\n")
    loaded = load([tmp_path / "list.yaml"])
    assert loaded.problems == ()
    assert [name_of(item) for item in loaded.objects] == ["ModelPool/default/llama"]


def test_the_same_object_twice_names_both_places(tmp_path):
    (tmp_path / "a.yaml").write_text("\n" + POOL)
    (tmp_path / "b.yaml").write_text(POOL)
    (tmp_path / "c.yaml").write_text(POOL.replace("{name: llama}", "{name: llama, namespace: other}"))
    loaded = load([tmp_path])
    (problem,) = loaded.problems
    assert problem[:4] == (str(tmp_path / "b.yaml"), 3, 12, "metadata.name")
    assert f"the same object stands in {tmp_path / 'a.yaml'}:4 already" in problem.message
    assert [name_of(item) for item in loaded.objects] == ["ModelPool/default/llama", "ModelPool/other/llama"]


def test_a_folder_is_its_own_files_by_name_and_nothing_below_or_hidden(tmp_path):
    for name in ("b.yml", "a.yaml", "c.json", ".hidden.yaml", "notes.txt", "sub/deep.yaml", "..data/x.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(POOL.replace("llama}", path.stem.strip(".") + "}"))
    (tmp_path / "c.json").write_text(
        '{"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelPool", "metadata": {"name": "c"}, "spec": {"models": '
        '[{"name": "m"}], "source": {"static": {"endpoints": [{"name": "a", "url": "http://a:1/"}]}}}}'
    )
    loaded = load([tmp_path])
    assert loaded.problems == ()
    assert [item.metadata.name for item in loaded.objects] == ["a", "b", "c"]


def test_a_file_named_twice_is_read_once(tmp_path):
    (tmp_path / "pool.yaml").write_text(POOL)
    (tmp_path / "link.yaml").symlink_to(tmp_path / "pool.yaml")
    loaded = load([tmp_path, tmp_path / "pool.yaml"])
    assert (len(loaded.objects), loaded.problems) == (1, ())


def test_a_mounted_config_map_is_read_through_its_links(tmp_path):
    (tmp_path / "..2025").mkdir()
    (tmp_path / "..2025" / "pool.yaml").write_text(POOL)
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "pool.yaml").symlink_to("..data/pool.yaml")
    assert len(load([tmp_path]).objects) == 1


def test_what_cannot_be_read_is_a_problem_and_no_exception(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: \u00fc\n".encode("latin-1"))
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + POOL.encode())
    names = ["missing.yaml", "empty", "big.yaml", "latin.yaml", "bom.yaml"]
    loaded = load([tmp_path / name for name in names])
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in loaded.problems] == [
        "missing.yaml: cannot be read: No such file or directory",
        "empty: holds no *.yaml, *.yml, *.json file",
        "big.yaml: is larger than 4 MiB; split it into several files",
        "latin.yaml:2:4: not text in UTF-8",
    ]
    assert len(loaded.objects) == 1


def test_a_later_problem_finds_its_line(tmp_path):
    (tmp_path / "pool.yaml").write_text(POOL)
    loaded = load([tmp_path])
    problem = loaded.problem_at("ModelPool/default/llama", "spec.source.static.endpoints[0].url", "gone")
    assert (problem.line, problem.column) == (10, 19)
    assert loaded.problem_at("ModelPool/default/llama", "spec.auth.secretRef", "gone").line == 4
