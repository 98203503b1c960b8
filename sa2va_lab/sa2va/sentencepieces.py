"""Tokenizers that a folder holds as sentencepiece's `tokenizer.model`: read as data, and made one of `tokenizers`.

The file is a list of pieces with scores, after protocol buffers: a piece is what two shorter ones are merged into, the
highest score first. Neither sentencepiece nor protobuf is needed. What the folder's tokenizer_config.json adds or puts
in the place of pieces (`added_tokens_decoder`) is obeyed; Python beside it is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import unpack

from sa2va_lab.sa2va.files import read_json

PIECES, CONFIG = "tokenizer.model", "tokenizer_config.json"
LARGEST, LONGEST = 64 << 20, 512  # bytes of the file, characters of a piece
BLANK = "▁"
NORMAL, UNKNOWN, OWN = 1, 2, 4  # kinds of pieces; OWN: its text is never cut or merged with what stands beside it
BPE = 2  # the kind of model
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


def open_pieces(folder: Path):
    """The tokenizer of a folder with `tokenizer.model`; where a `tokenizer.json` lies beside it, that has been made of
    it already. ValueError for what is no such file, or needs what is not done here."""
    from transformers import PreTrainedTokenizerFast

    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    named = {key: _content(config[key]) for key in NAMED if config.get(key)}
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **named)
    return PreTrainedTokenizerFast(tokenizer_object=build_tokenizer(folder / PIECES, config), **named)


def build_tokenizer(path: Path, config: dict):
    """A `tokenizers.Tokenizer` of the pieces in `path` and what tokenizer_config.json says."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    if path.stat().st_size > LARGEST:
        raise ValueError(f"{PIECES} is larger than {LARGEST:,} bytes")
    message = list(_fields(path.read_bytes()))
    trained, normal = (dict(_fields(next((value for key, value in message if key == one), b""))) for one in (2, 3))
    if trained.get(3, 1) != BPE:
        raise ValueError(f"{PIECES} is no BPE")
    pieces = [_piece(value) for key, value in message if key == 1]
    added = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    for number, token in added.items():
        if number < len(pieces):
            pieces[number] = (_content(token), 0.0, None)
    vocabulary = {text: number for number, (text, _, _) in enumerate(pieces)}
    if len(vocabulary) != len(pieces):
        raise ValueError(f"{PIECES} has a piece twice")
    unknown = next((text for text, _, kind in pieces if kind == UNKNOWN), pieces[0][0])
    model = models.BPE(
        vocab=vocabulary,
        merges=list_merges(pieces),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=bool(trained.get(35, 0)),
    )
    made = Tokenizer(model)
    rules = [normalizers.Precompiled(normal[2])] if normal.get(2) else []
    if normal.get(4, 1):  # blanks at the ends and repeated ones are dropped
        rules += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    prefixed, legacy = bool(normal.get(3, 1)), config.get("legacy", True)
    if prefixed and legacy:  # a blank before each text between special tokens, else before the first alone
        rules.append(normalizers.Prepend(BLANK))
    if rules:
        made.normalizer = normalizers.Sequence(rules)
    where = "first" if prefixed and not legacy else "never"
    made.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend_scheme=where, split=False)
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefixed)
    own = [text for text, _, kind in pieces if kind == OWN]
    if any(BLANK in text for text in own):
        raise ValueError(f"{PIECES} has blanks in pieces of its user's")
    made.add_tokens([AddedToken(text, normalized=False) for text in own])
    for number, token in sorted(added.items()):
        how = {key: bool(token.get(key)) for key in ("lstrip", "rstrip", "single_word", "normalized", "special")}
        special, token = how.pop("special"), AddedToken(_content(token), **how)
        (made.add_special_tokens if special else made.add_tokens)([token])
        if made.token_to_id(token.content) != number:
            raise ValueError(f"{CONFIG} has {token.content[:40]!r} at {number}, which is not the next free place")
    first = config.get("bos_token") and _content(config["bos_token"])
    if first and config.get("add_bos_token", True):
        made.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, made.token_to_id(first))]
        )
    return made


def list_merges(pieces: list[tuple[str, float, int | None]]) -> list[tuple[str, str]]:
    """Pairs of pieces that make a third, the one of highest score first. pieces: (text, score, kind) by id."""
    known = {text: number for number, (text, _, kind) in enumerate(pieces) if kind == NORMAL}
    found = []
    for text in known:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in known and right in known:
                found.append((-pieces[known[text]][1], known[left], known[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    text = fields[1].decode()
    if len(text) > LONGEST:
        raise ValueError(f"{PIECES} has a piece of {len(text):,} characters")
    return text, unpack("<f", fields.get(2, bytes(4)))[0], fields.get(3, NORMAL)


def _content(token: str | dict) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protocol buffer: a whole number, or bytes."""
    place = 0
    while place < len(data):
        key, place = _number(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _number(data, place)
        else:
            length, place = _number(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = data[place : place + length], place + length
            if place > len(data):
                raise ValueError(f"{PIECES} ends too early")
        yield key >> 3, value


def _number(data: bytes, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, the lowest first, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            break
    return value, place
