"""What all pages share: one file each, in one style, that needs neither network nor neighbours."""

from __future__ import annotations

from typing import Any

import jinja2

from retrofit.analysis.figures import signed


def render(template: str, **values: Any) -> str:
    """Return a page made from a template of this package; the same values give the same bytes."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrofit", "analysis"),
        autoescape=True,  # queries and passages are text from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"signed": signed, "score": score, "direction": _direction, "words": words}
    return environment.get_template(template).render(**values) + "\n"


def score(value: float) -> str:
    """Return a score with four digits."""
    return f"{value:.4f}"


def words(name: str) -> str:
    """Return a name as it is read."""
    return name.replace("_", " ")


def group_words(group: str) -> str:
    """Return a group of results as it is read: of several tasks of retention the task, without its suite."""
    _, of_task, task = group.partition(": ")
    return words(f"retention: {task}" if of_task else group)


def _direction(value: float) -> str:
    """Return the class of a change that is as large as the digits shown, none for a smaller one."""
    return "up" if value >= 0.00005 else "down" if value <= -0.00005 else ""
