import json
import zipfile
from pathlib import Path

from retrofit.data.embedded.emoji_names import read_emoji_names


def test_names_without_colons_flags_and_skin_tones(tmp_path: Path) -> None:
    path = tmp_path / "emoji.whl"
    english = {
        "😂": {"en": ":face_with_tears_of_joy:", "status": 2},
        "👍🏽": {"en": ":thumbs_up_medium_skin_tone:", "status": 2},
        "🇮🇱": {"en": ":Israel:", "status": 2},
        "☀": {"en": ":sun:", "status": 4},
        "🚕": {"en": ":taxi:", "status": 2},
    }
    hebrew = {"😂": ":פנים_עם_דמעות:", "👍🏽": ":אגודל:", "🇮🇱": ":ישראל:", "☀": ":שמש:", "🚕": ":taxi:"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("emoji/unicode_codes/emoji.json", json.dumps(english))
        archive.writestr("emoji/unicode_codes/emoji_he.json", json.dumps(hebrew))
        archive.writestr("emoji/unicode_codes/emoji_zh.json", json.dumps({"😂": ":笑哭了:"}))
    reading = read_emoji_names(path)
    assert [
        (pair.query, pair.positives, pair.language, pair.document_language, pair.group) for pair in reading.pairs()
    ] == [
        ("פנים עם דמעות", ("face with tears of joy",), "he", "en", "😂"),
        ("笑哭了", ("face with tears of joy",), "zh-Hans", "en", "😂"),
    ]
    assert reading.dropped == {
        ("emoji_name", "he", "flag or skin tone"): 2,
        ("emoji_name", "he", "not fully qualified"): 1,
        ("emoji_name", "he", "identical to English"): 1,
    }
