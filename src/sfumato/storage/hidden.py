"""Leaving out what was deleted. Those rows stay for a while, hidden, and there may be a hundred thousand of them."""

from sqlalchemy import Column, ColumnElement, exists, select

from sfumato.storage.tables import forgotten

__all__ = ["few_shown", "many_shown"]


def few_shown(job_id: Column[str]) -> ColumnElement[bool]:
    """Not deleted: for one job or a page of them. Each is looked up.

    Anything that PostgreSQL may turn into a join lets it read all that was ever deleted for a single row.
    """
    return select(forgotten.c.job_id).where(forgotten.c.job_id == job_id).scalar_subquery().is_(None)


def many_shown(job_id: Column[str]) -> ColumnElement[bool]:
    """Not deleted: for counting very many."""
    return ~exists().where(forgotten.c.job_id == job_id)
