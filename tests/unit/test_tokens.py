"""What counts as a prompt, which tokenizer counts it, and how far an estimate may be off."""

import base64
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overnight.domain.images import LOW_DETAIL, UNKNOWN_SIZE, image_tokens, size_in_url
from overnight.domain.prompt import Prompt, prompt_of_body, prompt_of_line
from overnight.domain.tokens import CL100K, O200K, Accuracy, PromptCount, Sample, encoding_of, pieces, size_of
from overnight.ports.tokens import TokenCounter
from overnight.services import tokens
from overnight.services.tokens import OTHER_MODELS, count_file, count_request

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"


class Words:
    """A tokenizer whose tokens are words; ``counted`` sums the bytes that it was given."""

    name = "words"

    def __init__(self, *, exact: bool = True) -> None:
        self.exact = exact
        self.counted = 0

    def of(self, model: str) -> TokenCounter:
        return self

    def count(self, text: str) -> int:
        self.counted += size_of(text)
        return len(text.split())


def prompt(body: object, endpoint: str = CHAT) -> Prompt:
    found = prompt_of_body(json.dumps(body).encode(), endpoint)
    assert found is not None
    return found


def counted(body: object, endpoint: str = CHAT) -> PromptCount:
    found = count_request(json.dumps(body).encode(), endpoint, Words())
    assert found is not None
    return found


def write(path: Path, *bodies: object, url: str = CHAT) -> Path:
    lines = [json.dumps({"custom_id": "r", "method": "POST", "url": url, "body": each}) for each in bodies]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# --- prompts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "body", "tokens"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "one two"}]}, 4 + 2 + 3),
        (CHAT, {"messages": [{"role": "system", "content": "one"}, {"role": "user", "content": "two"}]}, 8 + 2 + 3),
        (CHAT, {"messages": [{"role": "user", "name": "ann", "content": "one"}]}, 4 + 1 + 1 + 1 + 3),
        (CHAT, {"messages": [{"content": [{"type": "text", "text": "a b"}, {"type": "text", "text": "c"}]}]}, 10),
        (CHAT, {"messages": []}, 0),
        (CHAT, {"messages": "odd"}, 0),
        ("/v1/completions", {"prompt": "one two"}, 2),
        ("/v1/completions", {"prompt": [[5, 6], [7]]}, 3),
        (EMBEDDINGS, {"input": ["one two", "three"]}, 3),
        (EMBEDDINGS, {"input": [1, 2, 3]}, 3),
        ("/v1/moderations", {"input": [{"type": "text", "text": "one two"}]}, 2),
        (RESPONSES, {"input": "one two"}, 4 + 2 + 3),
        (RESPONSES, {"input": "one", "instructions": "two"}, 8 + 2 + 3),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a b"}]}]}, 9),
        (CHAT, {}, 0),
    ],
)
def test_a_prompt_is_all_its_texts_and_what_each_message_adds(endpoint: str, body: Any, tokens: int) -> None:
    """OpenAI documents three tokens a message and its role, and three for the beginning of the answer."""
    assert counted(body, endpoint) == PromptCount(tokens=tokens, exact=True, tokenizer="words")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"tools": [{"type": "function"}]}),
        (CHAT, {"functions": [{"name": "f"}]}),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}),
        (RESPONSES, {"input": [{"type": "function_call", "arguments": "{}"}]}),
        (CHAT, {"messages": [{"content": [{"type": "input_audio", "input_audio": {}}]}]}),
        (CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}),
        (RESPONSES, {"prompt": {"id": "pmpt_1"}}),
    ],
)
def test_what_has_no_documented_count_is_called_a_guess(endpoint: str, body: Any) -> None:
    """A number that looks exact and is not would mislead."""
    assert counted(body, endpoint).exact is False


@pytest.mark.parametrize("body", [{"tools": []}, {"tools": None}])
def test_no_tools_are_no_guess(body: Any) -> None:
    """Some SDKs send them empty."""
    assert counted(body).exact is True


@pytest.mark.parametrize("raw", [b"", b"nope", b"[]", b"\xff", b'{"messages":' + b"[" * 100_000])
def test_what_is_no_body_has_no_prompt(raw: bytes) -> None:
    """Counting comes without checking, so it must bear anything."""
    assert count_request(raw, CHAT, Words()) is None


@pytest.mark.parametrize("raw", [b"", b"nope", b"[]", b"{}", b'{"body":5}', b"\xff"])
def test_what_is_no_request_has_no_prompt(raw: bytes) -> None:
    """The same for a line."""
    assert prompt_of_line(raw) is None


@pytest.mark.parametrize(
    ("body", "bound"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_output_tokens": 9}, 9),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "5"}, None),
        ({}, None),
    ],
)
def test_the_bound_of_the_answer_is_read(body: Any, bound: int | None) -> None:
    """In each of its three spellings."""
    assert prompt(body).output_bound == bound


# --- images ------------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + b"\0" * width for _ in range(height)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6 + b";"


def jpeg(width: int, height: int, *, exif: int = 60_000, frame: int = 0xC2) -> bytes:
    def segment(marker: int, data: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data

    start = segment(0xE0, b"JFIF\0" + b"\0" * 9) + segment(0xE1, b"Exif\0\0" + b"\xff" * exif) + b"\xff"
    table = segment(0xC4, b"\0" * 20)
    size = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\x01" + start + table + segment(frame, size) + segment(0xDA, b"\0" * 6) + b"\xff\xd9"


def webp(kind: bytes, data: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height | 0x4000) + b"\0" * 8)


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"\0" * 8)


def webp_extended(width: int, height: int) -> bytes:
    three = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", b"\0\0\0\0" + three + b"\0" * 8)


def url(image: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


@pytest.mark.parametrize("make", [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended])
@pytest.mark.parametrize("size", [(1, 1), (300, 200), (513, 1025)])
def test_the_size_of_an_image_is_read_from_its_header(make: Any, size: tuple[int, int]) -> None:
    """For each format that OpenAI takes."""
    assert size_in_url(url(make(*size))) == size


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/cat.png",
        "data:image/png,plain",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,iVBO",
        url(b"BM" + b"\0" * 60),
        url(png(0, 0)),
        url(b"\x89PNG\r\n\x1a\n" + b"\0" * 40),
        url(webp(b"XXXX", b"\0" * 20)),
        url(b"\xff\xd8" + b"\0" * 40),
        url(b"\xff\xd8" + b"\xff\xe0\0\x02" * 100 + b"\0" * 40),
        url(jpeg(8, 8)[:1000]),
    ],
)
def test_the_size_of_anything_else_is_not_known(text: str) -> None:
    """Broken images are for the model to refuse."""
    assert size_in_url(text) is None


@given(st.binary(max_size=80))
def test_no_header_is_too_odd(rest: bytes) -> None:
    """Whatever follows the first bytes of an image, there is a size or there is none."""
    for start in (b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"RIFF0000WEBPVP8L", b""):
        size = size_in_url(url(start + rest))
        assert size is None or min(size) > 0


def test_a_large_image_is_not_decoded() -> None:
    """The frame of a JPEG is found behind its EXIF data though what follows is no base64 at all."""
    head = url(jpeg(640, 480))

    assert size_in_url(head[: len(head) - 8] + "!" * 1_000_000) == (640, 480)


@pytest.mark.parametrize(
    ("size", "tokens"),
    [
        ((1, 1), 255),
        ((512, 512), 255),
        ((513, 512), 425),
        ((1024, 1024), 765),
        ((2048, 4096), 1105),
        ((4096, 8192), 1105),
        ((1, 1_000_000), 765),
        (None, UNKNOWN_SIZE),
    ],
)
def test_an_image_costs_85_tokens_and_170_for_each_tile(size: tuple[int, int] | None, tokens: int) -> None:
    """The second and third large ones are the examples of OpenAI's guide."""
    assert image_tokens(size, low=False) == tokens
    assert image_tokens(size, low=True) == LOW_DETAIL


@pytest.mark.parametrize(
    ("endpoint", "part", "tokens", "exact"),
    [
        (CHAT, {"image_url": {"url": url(png(600, 500))}}, 425, True),
        (CHAT, {"image_url": {"url": url(png(600, 500)), "detail": "low"}}, 85, True),
        (CHAT, {"image_url": {"url": "https://x/y", "detail": "low"}}, 85, True),
        (CHAT, {"image_url": {"url": "https://x/y"}}, 765, False),
        (CHAT, {"image_url": {}}, 765, False),
        (RESPONSES, {"image_url": url(png(600, 500))}, 425, True),
        (RESPONSES, {"image_url": "https://x/y", "detail": "low"}, 85, True),
    ],
)
def test_images_of_a_message_are_counted(endpoint: str, part: Any, tokens: int, exact: bool) -> None:
    """As chat and responses write them."""
    body = {"messages" if endpoint == CHAT else "input": [{"role": "user", "content": [part]}]}

    assert counted(body, endpoint) == PromptCount(tokens=tokens + 7, exact=exact, tokenizer="words")
    assert prompt(body, endpoint).images == 1


# --- tokenizers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", O200K),
        ("gpt-4.1", O200K),
        ("gpt-5.1-mini", O200K),
        ("o3-mini", O200K),
        ("openai/gpt-oss-120b", O200K),
        ("ft:gpt-4o-2024-08-06:acme::1", O200K),
        ("gpt-4", CL100K),
        ("GPT-4-turbo", CL100K),
        ("gpt-35-turbo", CL100K),
        ("text-embedding-3-small", CL100K),
        ("gpt-40", None),
        ("o1x", None),
        ("llama-3", None),
        ("", None),
    ],
)
def test_the_name_of_a_model_tells_its_encoding(model: str, encoding: str | None) -> None:
    """Also that of Azure, of a fine-tune, and behind the name of a provider."""
    assert encoding_of(model) == encoding


# --- samples -----------------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab ü", max_size=100).map(lambda text: text * 700))
@settings(max_examples=30)
def test_pieces_make_up_their_text(text: str) -> None:
    """Nothing is counted twice or not at all."""
    found = list(pieces(text))

    assert "".join(found) == text
    assert max(map(len, found)) <= 16_384


KINDS = ("even", "mixed", "sorted", "period", "two languages")


def made_up(kind: str, count: int, seed: int) -> list[tuple[int, int]]:
    """Make sizes and tokens of texts."""
    draw = random.Random(seed)

    def one(number: int) -> tuple[int, int]:
        size = draw.randint(1000, 2000)
        match kind:
            case "mixed":
                size = int(draw.lognormvariate(6, 1.5)) + 1
                return size, int(size / draw.choice((4, 4, 4, 1.5)))
            case "sorted":
                return size, int(size / (4 - 3 * number / count))
            case "period":
                return size, int(size / (1 if number % 13 == 0 else 4))
            case "two languages":
                return size, int(size / draw.choice((4, 1.2)))
        return size, size // 4 + draw.randint(-20, 20)

    return [one(number) for number in range(count)]


def within(texts: list[tuple[int, int]], one_in: int) -> bool:
    sample = Sample(one_in)
    for size, count in texts:
        if weight := sample.draw(size):
            sample.add(size, count, weight)
    found = sample.estimate()
    return abs(found.tokens - sum(count for _, count in texts)) <= found.error + 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("count", "one_in"), [(300, 5), (2000, 13)])
def test_the_bound_holds_for_95_of_100_files(kind: str, count: int, one_in: int) -> None:
    """Languages mixed or in turn, lengths of all kinds, and a pattern of the very period of the sample."""
    held = sum(within(made_up(kind, count, seed), one_in) for seed in range(40))

    assert held >= 38


@given(st.lists(st.integers(0, 5000), max_size=200), st.floats(0.2, 1.5), st.integers(1, 50))
def test_one_ratio_throughout_is_found(sizes: list[int], ratio: float, one_in: int) -> None:
    """Whatever the lengths and however few are counted, only the rounding of each text is left."""
    sample = Sample(one_in)
    for size in sizes:
        if weight := sample.draw(size):
            sample.add(size, round(size * ratio), weight)
    found, truth = sample.estimate(), sum(round(size * ratio) for size in sizes)

    assert abs(found.tokens - truth) <= len(sizes)
    assert found.error <= 30 * len(sizes)


def test_a_sample_of_everything_is_exact() -> None:
    """One in one is all."""
    sample = Sample(1)
    for size, count in made_up("mixed", 500, 1):
        assert sample.draw(size) == 1
        sample.add(size, count, 1)
    found = sample.estimate()

    assert (sum(count for _, count in made_up("mixed", 500, 1)), 0) == (found.tokens, found.error)


# --- files -------------------------------------------------------------------------------------------------------


def a_body(model: str = "m", text: str = "one two", **more: object) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def test_a_small_file_is_counted_exactly(tmp_path: Path) -> None:
    """By model, with the bounds of the answers where they are given."""
    path = write(tmp_path / "f", a_body(max_tokens=5), a_body("n", "three"), a_body(max_tokens=6))
    with path.open("a") as file:
        file.write("nope\n\n{}\n")
    found = count_file(path, Words())

    assert (found.requests, found.unreadable, found.bytes) == (3, 2, path.stat().st_size)
    assert (found.largest_line, found.largest_bytes) == (1, len(path.read_bytes().splitlines()[0]) + 1)
    first, second = found.models
    assert (first.model, first.requests, first.prompt_tokens, first.error) == ("m", 2, 18, 0)
    assert (first.max_output_tokens, first.bounded, first.images) == (11, 2, 0)
    assert (second.model, second.prompt_tokens, second.accuracy) == ("n", 8, Accuracy.EXACT)


def test_a_large_file_is_sampled(tmp_path: Path) -> None:
    """A part is counted, and the truth is within the bound."""
    draw = random.Random(3)
    texts = ["word " * draw.randint(1, 300) + "x" * draw.randint(0, 300) for _ in range(3000)]
    path = write(tmp_path / "f", *(a_body(text=text) for text in texts))
    words = Words()
    (found,) = count_file(path, words, 100_000).models
    truth = sum(len(text.split()) + 7 for text in texts)

    assert found.accuracy == Accuracy.SAMPLED
    assert abs(found.prompt_tokens - truth) <= found.error < truth / 20
    assert words.counted < path.stat().st_size / 3
    assert count_file(path, Words(), 100_000).models == (found,)


def test_long_texts_are_sampled_in_pieces(tmp_path: Path) -> None:
    """Few long requests are as quick as many short ones."""
    path = write(tmp_path / "f", *(a_body(text="word " * 500_000) for _ in range(4)))
    words = Words()
    (found,) = count_file(path, words, 400_000).models

    assert abs(found.prompt_tokens - (2_000_000 + 28)) <= found.error + 2
    assert words.counted < path.stat().st_size / 2


def test_a_rough_tokenizer_is_not_sampled(tmp_path: Path) -> None:
    """It costs nothing to ask it about everything; what it says stays an estimate."""
    path = write(tmp_path / "f", *(a_body() for _ in range(100)))
    (found,) = count_file(path, Words(exact=False), 100).models

    assert (found.prompt_tokens, found.error, found.accuracy) == (900, 0, Accuracy.ESTIMATE)


def test_one_guess_makes_the_sum_an_estimate(tmp_path: Path) -> None:
    """A sum is no better than its parts."""
    (found,) = count_file(write(tmp_path / "f", a_body(), a_body(tools=[{}])), Words()).models

    assert found.accuracy == Accuracy.ESTIMATE


def test_an_empty_file_has_no_requests(tmp_path: Path) -> None:
    """And no largest one."""
    (tmp_path / "f").touch()
    found = count_file(tmp_path / "f", Words())

    assert (found.requests, found.largest_line, found.models) == (0, 0, ())


def test_a_line_too_long_to_be_read_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded whatever the file holds."""
    monkeypatch.setattr(tokens, "_LONGEST_LINE", 200)
    found = count_file(write(tmp_path / "f", a_body(text="x" * 500), a_body()), Words())

    assert (found.requests, found.unreadable) == (1, 1)


def test_very_many_models_share_a_place(tmp_path: Path) -> None:
    """Memory stays bounded, as said."""
    found = count_file(write(tmp_path / "f", *(a_body(f"m-{number}") for number in range(300))), Words())

    assert (found.models[-1].model, found.models[-1].requests, len(found.models)) == (OTHER_MODELS, 44, 257)


def test_a_name_without_end_is_not_kept(tmp_path: Path) -> None:
    """A line of 64 MB may be one name, and what was found is remembered."""
    found = count_file(write(tmp_path / "f", a_body("x" * 256), a_body("y" * 257)), Words())

    assert [each.model for each in found.models] == ["x" * 256, OTHER_MODELS]
