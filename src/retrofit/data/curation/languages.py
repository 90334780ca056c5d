"""Whether a text is in the language it is declared to be in, by a model that is bundled with its library."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import langcodes
from langcodes.tag_parser import LanguageTagError
from py3langid.langid import MODEL_FILE, LanguageIdentifier

_CHARACTERS_READ = 120
# Declared codes whose language the library calls otherwise.
_ALIASES = {"nb": "no", "fil": "tl"}
# Written so alike that a sentence may be both, so taking one for the other contradicts nothing.
_FAMILIES = {
    **dict.fromkeys(("yue", "wuu"), "zh"),
    "nn": "no",
    **dict.fromkeys(("hr", "bs"), "sr"),
    "ms": "id",
    **dict.fromkeys(("arz", "ary"), "ar"),
    "uzs": "uz",
    "sdh": "ku",
    "ltg": "lv",
    **dict.fromkeys(("an", "ext"), "es"),
    "pcm": "en",
}
_NO_LANGUAGE = "zxx"
# Languages the library knows in more than one script.
_SCRIPTS = frozenset({("zh", "Hans"), ("zh", "Hant"), ("sr", "Latn"), ("sr", "Cyrl")})


@cache
def _identifier() -> Any:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1024)
def known_language(code: str) -> str | None:
    """Return the language a code means, as detection names it; None where detection does not know it.

    Args:
        code: as a source declares it: ``de``, ``pt-BR``, ``zh-Hant``, ``sr-Latn``, ISO 639-3 (``cmn``), FLORES
            (``arb_Arab``). A language in a script that is not its usual one is not known.
    """
    try:
        language = langcodes.Language.get(langcodes.standardize_tag(code, macro=True))
    except LanguageTagError:
        return None
    name = _ALIASES.get(str(language.language), str(language.language))
    if name not in _identifier().labels or name == _NO_LANGUAGE:
        return None
    if language.script and (name, language.script) not in _SCRIPTS:
        return None
    return _FAMILIES.get(name, name)


def contradiction(text: str, language: str, min_confidence: float) -> tuple[str, float] | None:
    """Return the other language a text is surely in, and how sure that is; None where nothing speaks against it.

    Args:
        text: without placeholders and URLs; its first 120 characters are read.
        language: as ``known_language`` names it.
        min_confidence: between 0 and 1.
    """
    found, confidence = _identifier().classify(text[:_CHARACTERS_READ])
    family = _FAMILIES.get(found, found)
    if family in (language, _NO_LANGUAGE) or confidence < min_confidence:
        return None
    return family, float(confidence)
