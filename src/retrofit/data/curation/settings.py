"""What `curation` can be told: one model, so that a misspelt key or a value out of range is one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from retrofit.errors import UserError


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def parse(cls, settings: Mapping[str, Any], key: str) -> Self:
        """Return the settings that a configuration holds under a key.

        Raises:
            UserError: a key is unknown or missing, or its value is not what is expected; names it.
        """
        try:
            return cls.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            named = ".".join((key, *map(str, first["loc"])))
            if first["type"] == "extra_forbidden":
                raise UserError(f"{named} is not a setting of {key}: remove it or correct its name") from None
            if first["type"] == "missing":
                raise UserError(f"{named} is missing: give it a value, or null where it may be switched off") from None
            message = first["msg"].removeprefix("Value error, ")
            raise UserError(f"{named}={first['input']!r}: {message[:1].lower()}{message[1:]}") from None


def _off(value: Any) -> Any:
    return None if value is False else value


_Off = BeforeValidator(_off)
_Similarity = Annotated[float, Field(ge=0.5, le=1)]
_Length = Annotated[int, Field(ge=1)]


class Bounds(_Settings):
    """Lengths of a text in characters, both included; None is no bound."""

    min: Annotated[_Length | None, _Off]
    max: Annotated[_Length | None, _Off]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be above max")
        return self


class LengthSettings(_Settings):
    """Bounds of queries and of passages."""

    query: Bounds
    passage: Bounds


class PlaceholderSettings(_Settings):
    """Texts that are nothing but placeholders, URLs, digits and punctuation; and the share of placeholders allowed."""

    max_share: Annotated[float, Field(ge=0, le=1)]


class LanguageSettings(_Settings):
    """From which length a text's language is checked, and how sure a contradiction must be."""

    min_chars: _Length
    min_confidence: Annotated[float, Field(gt=0, le=1)]


class DecontaminationSettings(_Settings):
    """What counts as seen in evaluation: an equal text, a similar one, a run of characters in common."""

    exact: bool
    near: Annotated[_Similarity | None, _Off]
    shared_run: Annotated[Annotated[int, Field(ge=10)] | None, _Off]
    run_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class DuplicateSettings(_Settings):
    """Which rows repeat an earlier one: equal ones, similar ones."""

    exact: bool
    near: Annotated[_Similarity | None, _Off]


class CurationSettings(_Settings):
    """Settings of all rules; None switches a rule off."""

    length: Annotated[LengthSettings | None, _Off] = None
    placeholders: Annotated[PlaceholderSettings | None, _Off] = None
    language: Annotated[LanguageSettings | None, _Off] = None
    decontamination: Annotated[DecontaminationSettings | None, _Off] = None
    duplicates: Annotated[DuplicateSettings | None, _Off] = None
