"""Finds things among the objects that the chart renders."""

from __future__ import annotations


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def names(objects, kind):
    return {one["metadata"]["name"] for one in of_kind(objects, kind)}


def named(objects, kind, name):
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"] == name)
    return found


def argument(container, flag):
    return next(text.partition("=")[2] for text in container["args"] if text.startswith(f"--{flag}="))


def matches(selector, labels):
    return selector.items() <= labels.items()
