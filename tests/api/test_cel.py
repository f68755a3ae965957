"""The CEL module: expressions with declared variables, the URL functions of Kubernetes, and errors."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spillway_api import weburl
from spillway_api.cel import CompileError, EvaluationError, compile_expression

# What Go's url.ParseRequestURI makes of these, as a kube-apiserver 1.34 answered.
ABSOLUTE = [
    "http://x/?", "HTTP://x/", "http://x:", "http://x:99999", "http://[::1]:80", "http://::1/", "http://a/%20",
    "http://éx/", "http://x/\\", "http://<x>/", "http://a_b/", "http://a/b c", "http://]::1/", "http://x?",
    "http://a%e9b/", "http://a%25b/", "https://x:80:80/", "http://169.254.169.254./", 'http://x"y/',
    "http://!$&'()*+,;=/", "http://[::1%25eth0]/", "http://[::ffff:1.2.3.4]/", "http://a/?%zz", "http://x/@",
]  # fmt: skip
NOT_ABSOLUTE = [
    "", "*", "http://x:a", "http://a b/", "http://a%20b/", "http://a/%zz", "http:///x/y", "http:xxxxxx", "/abcdefgh",
    "http://x\\y/", "http://a%41b/", "http://a\x7f/b", "http://[::1/", "http://a[::1]/", "http://[foo]/",
    "http://[::1]a/", "ht tp://xx/", "1http://x/", "://xxxxxxx", "http://user:pa ss@x/", "http://x/%",
    "http://[1.2.3.4]/", "http://[]/xx", "http://:80/", "http://a:+1/", "http://a|b/x", "http://a^b/x", "relative",
]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "expected"), [(url, True) for url in ABSOLUTE] + [(url, False) for url in NOT_ABSOLUTE]
)
def test_urls_are_read_as_the_api_server_reads_them(url, expected):
    rule = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''"
    assert compile_expression(rule, {"self": "dyn"}).evaluate({"self": url}) is expected


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Host:80/", "Host"),
        ("http://[fd00:ec2::254]:1/", "fd00:ec2::254"),
        ("http://user:secret@host/", "host"),
        ("/path", ""),
    ],
)
def test_hostname_has_neither_port_nor_brackets(url, host):
    parsed = weburl.parse(url)
    assert parsed is not None
    assert parsed.host == host


@pytest.mark.parametrize(
    ("query", "parameters"),
    [("", {}), ("a=1&a=2&b", {"a": ["1", "2"], "b": [""]}), ("a;b", {}), ("%zz", {}), ("a+b=c%20d", {"a b": ["c d"]})],
)
def test_query_parameters(query, parameters):
    assert weburl.parameters(query) == parameters
    rule = compile_expression("url(self).getQuery().size()", {"self": "dyn"})
    assert rule.evaluate({"self": f"http://host/?{query}"}) == len(parameters)


@pytest.mark.parametrize(
    ("expression", "variables", "value"),
    [
        ("tokens.input > 100", {"tokens.input": 250}, True),
        ("used > 75", {"used": 75.5}, True),
        ("headers['x-tier'] == 'premium'", {"headers": {"x-tier": "premium"}}, True),
        ("[1, 2].map(x, x * 2)", {}, [2, 4]),
        ("{'a': self}", {"self": None}, {"a": None}),
    ],
)
def test_values(expression, variables, value):
    assert compile_expression(expression, dict.fromkeys(variables, "dyn")).evaluate(variables) == value


def test_a_typo_is_a_compile_error_with_line_and_column():
    with pytest.raises(CompileError, match=r"1:1: undeclared reference to 'tokens_usd'"):
        compile_expression("tokens_usd > 1", {"tokens_used": "dyn"})
    with pytest.raises(CompileError, match="Syntax error"):
        compile_expression("a >", {"a": "dyn"})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("self.missing == 1", {}),
        ("self > 1", "text"),
        ("duration(self) > duration('1s')", "soon"),
        ("self == 1", 2**70),
    ],
)
def test_what_has_no_value_is_an_evaluation_error(expression, value):
    with pytest.raises(EvaluationError):
        compile_expression(expression, {"self": "dyn"}).evaluate({"self": value})


def test_a_missing_variable_is_an_evaluation_error():
    with pytest.raises(EvaluationError):
        compile_expression("a == 1", {"a": "int"}).evaluate({})


def test_the_library_is_loaded_with_the_first_expression_and_not_before():
    code = (
        "import sys, spillway_api.cel, spillway_api.files, spillway_api.compile, spillway_api.snapshot;"
        "sys.exit('cel_expr_python' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
