import os
import random

import pytest

from modeling_cnn10bert.retrieval.stores.paths import decode_path, encode_path, folder_range

# All that the encoding treats in a special way, and what stands beside it.
CHARACTERS = ["a", "/", ".", "\n", "'", "é", "東", "\ud800", "\udbff", "\udc80", "\udcff", "\udfff"]
CHARACTERS += [chr(code) for code in (0xE000, 0x10EFFF, 0x10F000, 0x10F080, 0x10F7FF, 0x10F800, 0x10F801, 0x10FFFF)]


def random_texts(count, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices(CHARACTERS, k=rng.randrange(9))) for _ in range(count)]


def test_any_text_becomes_valid_unicode_and_comes_back():
    for text in random_texts(20_000):
        encoded = encode_path(text)
        encoded.encode("utf-8")  # which raises for a surrogate
        assert decode_path(encoded) == text


def test_any_bytes_as_a_name_come_back():
    rng = random.Random(1)
    for _ in range(5000):
        name = bytes(rng.choices([*range(1, 256), 0xF4, 0x8F, 0x80, 0xBF, 0xC3], k=rng.randrange(1, 12)))
        assert os.fsencode(decode_path(encode_path(os.fsdecode(name)))) == name


def test_different_names_stay_different():
    texts = set(random_texts(20_000, seed=2))
    assert len({encode_path(text) for text in texts}) == len(texts)


def test_an_ordinary_name_stays_as_it_is():
    for path in ("/home/me/sounds/it's 100%_fine\\.wav", "/音/é\n.wav", ""):
        assert encode_path(path) == path


def test_a_path_is_within_the_range_of_a_folder_exactly_where_it_is_below_it():
    names = [text.replace("/", "").replace(".", "") or "x" for text in random_texts(300, seed=3)]
    for folder, other in zip(names, names[1:], strict=False):
        first, end = folder_range(f"/{folder}")
        for path in (
            f"/{folder}/{other}",
            f"/{folder}/deep/{other}",
            f"/{folder}{other}/x",
            f"/{other}/x",
            f"/{folder}",
        ):
            within = first.encode() <= encode_path(path).encode() < end.encode()
            assert within == path.startswith(f"/{folder}/"), (folder, path)


@pytest.mark.parametrize("folder", ["/a/b", "/a/b/", "/a//b/", "/a/./b", "/a/c/../b"])
def test_a_folder_may_be_written_in_several_ways(folder):
    assert folder_range(folder) == ("/a/b/", "/a/b0")


def test_everything_is_below_the_root():
    assert folder_range("/") == ("/", "0")
