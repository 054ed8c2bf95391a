"""Images, videos and sounds in a row: by the names of columns and by their values. Standard library only."""

import re
from itertools import islice

from .refused import is_missing

#: Columns that hold media whatever their values look like.
MEDIA_COLUMNS = frozenset(
    f"{name}{ending}"
    for name in ("image", "img", "picture", "photo", "video", "audio")
    for ending in ("", "s", "_path", "_paths", "_url", "_urls", "_file", "_files", "_bytes", "_base64", "_b64", "_list")
) | {"pixel_values", "mm_data", "multi_modal_data"}
_ENDINGS = (
    "png|jpe?g|gif|webp|bmp|tiff?|svg|heic|heif|avif|ico|mp4|m4v|mov|avi|mkv|webm|mpe?g|flv|wmv|wav|mp3|flac|ogg|m4a"
    "|aac|opus"
)
#: One path or address, without blanks, so that a sentence that ends in a file's name is none.
_PATH = re.compile(rf"(?:[a-z]+://|file:)?[^\s<>\"|*]{{1,1000}}\.(?:{_ENDINGS})(?:[?#][^\s]{{0,1000}})?", re.IGNORECASE)
_DATA_ADDRESS = re.compile(r"\s?data:(?:image|video|audio)/[\w.+-]+[;,]", re.IGNORECASE)
#: How base64 begins of PNG, JPEG, GIF, RIFF (WebP, AVI, WAV), BMP, MP4 and its kin, Matroska, Ogg, MP3, FLAC and TIFF.
_BASE64 = re.compile(
    r"(?:iVBORw0KGgo|/9j/[24]|R0lGOD(?:lh|dh)|UklGR|Qk[A-Za-z0-9+/]{6}AAAA|AAAA[A-Za-z0-9+/]{2}Z0eX|GkXfo|T2dnUw|SUQz[AB]"
    r"|ZkxhQ|SUkqA|TU0AK)[A-Za-z0-9+/\r\n]{30,}={0,2}\s*"
)
_MAGIC = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|RIFF....(?:WEBP|AVI |WAVE)|BM....\0\0\0\0|....ftyp|\x1a\x45\xdf\xa3|OggS|ID3|fLaC"
    rb"|II\*\0|MM\0\*",
    re.DOTALL,
)
_MOST_LOOKED_AT, _MOST_ITEMS = 4_000, 50
#: Columns of schemas, whose examples and defaults may name any file.
_SCHEMAS = frozenset({"tools", "functions"})


def media_column(row, texts=()) -> str | None:
    """The first column of a row that holds an image, a video or a sound, by name or by value; None without one.

    texts: columns that are read as prompt or answers; a file's name is an ordinary answer, base64 is not.
    """
    for column, value in row.items():
        if column in texts:
            if isinstance(value, str) and is_encoded_media(value):
                return column
        elif column in _SCHEMAS:
            continue
        elif (column.lower() in MEDIA_COLUMNS and _holds_something(value)) or is_media(value):
            return column
    return None


def is_media(value) -> bool:
    """Whether a value is, or somewhere holds, a picture, a video or a sound: path, address, bytes, or base64."""
    if isinstance(value, str):
        return is_path(value) or is_encoded_media(value)
    if isinstance(value, bytes | bytearray):
        return _MAGIC.match(bytes(value[:16])) is not None
    if isinstance(value, list | tuple):
        some = value[:_MOST_ITEMS]
        if any(isinstance(item, dict | list) and is_media(item) for item in some):
            return True
        return bool(value) and all(isinstance(item, str | bytes) and is_media(item) for item in some)
    if isinstance(value, dict):  # how `datasets` stores an image, parts of contents, or anything below other keys
        return any(map(is_media, islice(value.values(), _MOST_ITEMS)))
    return False


def is_path(text) -> bool:
    """Whether a whole text is the path or the address of a picture, video or sound."""
    return len(text) < 2_000 and _PATH.fullmatch(text.strip()) is not None


def is_encoded_media(text) -> bool:
    """Whether a text is a picture, video or sound in base64, bare or as a data address."""
    if _DATA_ADDRESS.match(text):
        return True
    return len(text) >= 48 and " " not in text[:64] and _BASE64.fullmatch(text[:_MOST_LOOKED_AT]) is not None


def _holds_something(value):
    if is_missing(value) or isinstance(value, bool):
        return False
    if isinstance(value, dict):  # `datasets` stores a missing image as {"bytes": None, "path": None}
        return any(item is not None for item in value.values())
    return not isinstance(value, str | bytes | list | tuple) or len(value) > 0
