import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrofit.data.embedded.cleaning import clean, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\n\n lines\u00a0here ", "two lines here"),
        ("cafe\u0301", "café"),
        ("Read [the docs]({docs_url}) first", "Read the docs first"),
        ("[Daha fazla bilgi.]( {url} #topic)", "Daha fazla bilgi."),
        ("前往 [文档]（{url}）查看", "前往 文档查看"),
        ("See [a page](https://example.org/x_(y)).", "See a page."),
        ("[optional] (see below)", "[optional] (see below)"),
        ("Press **Submit** or *cancel*", "Press Submit or cancel"),
        ("2 * 3 * 4 and snake__case", "2 * 3 * 4 and snake__case"),
        ("enable `default_config`", "enable default_config"),
        ("Paste:\n```yaml\nkey: 1\n```\ndone", "Paste: key: 1 done"),
        ("# Heading\n* one\n- two", "Heading one two"),
        ("a<br>b <b>c</b> <a href='x'>d</a>", "a b c d"),
        ("<token> between 1 < x < 5", "<token> between 1 < x < 5"),
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Configure {device_name} at { host }", "Configure device name at host"),
        ("**`{code}`**", "code"),
        ("הכנס את **הקוד** עבור [המכשיר]({url})", "הכנס את הקוד עבור המכשיר"),
        ("デバイス **{name}** を\n設定しますか？", "デバイス name を 設定しますか？"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("zero\u200bwidth", "zerowidth"),
        ("", ""),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_normalise_leaves_marks_alone() -> None:
    assert normalise(" *a*  `b` {c} <br> ") == "*a* `b` {c} <br>"


@given(st.text())
def test_plain_words_are_cleaned_to_themselves(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "\n" not in clean(text)
