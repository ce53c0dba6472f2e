"""The token cache: what goes in comes out, the size stays bounded, and damage costs speed only."""

import logging
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import Tokens, load_backbone
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.token_cache import TokenCache, token_key
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = [f"{i:064x}" for i in range(0, 2**14 * 40, 2**14)]


def tokens(seed=0, rows=3, columns=4, dim=8):
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randn(1, rows, columns, dim, generator=generator), torch.randn(1, dim, generator=generator))


def files(cache):
    return [path for path in cache.folder.rglob("*") if path.is_file()]


def size_of_one(tmp_path):
    cache = TokenCache(tmp_path / "probe")
    cache.put(KEYS[0], tokens())
    return files(cache)[0].stat().st_size


def test_what_goes_in_comes_out_in_half_precision(tmp_path):
    cache, given_tokens = TokenCache(tmp_path), tokens()

    returned = cache.put(KEYS[0], given_tokens)
    read = TokenCache(tmp_path).get(KEYS[0])

    for a, b, c in ((given_tokens.patch, returned.patch, read.patch), (given_tokens.cls, returned.cls, read.cls)):
        assert c.dtype == torch.float32
        assert torch.equal(b, c)
        assert torch.equal(c, a.half().float())


def test_what_was_never_stored_is_absent(tmp_path):
    assert TokenCache(tmp_path / "not-made-yet").get(KEYS[0]) is None


def test_tokens_that_half_precision_cannot_hold_are_neither_stored_nor_changed(tmp_path):
    cache = TokenCache(tmp_path)
    huge = Tokens(torch.full((1, 1, 1, 2), 1e6), torch.zeros(1, 2))
    assert cache.put(KEYS[0], huge) is huge
    assert cache.get(KEYS[0]) is None


def test_the_key_tells_images_models_precisions_and_preprocessing_apart():
    backbone = load_backbone("embedded", device="cpu")
    half = load_backbone("embedded", device="cpu", precision="bf16")
    keys = [
        token_key("image-a", backbone, {"size": 336, "resize": "squash"}),
        token_key("image-b", backbone, {"size": 336, "resize": "squash"}),
        token_key("image-a", half, {"size": 336, "resize": "squash"}),
        token_key("image-a", backbone, {"size": 224, "resize": "squash"}),
        token_key("image-a", backbone, "size 336"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == token_key("image-a", backbone, {"resize": "squash", "size": 336})


def test_the_least_recently_used_entry_goes_first(tmp_path):
    one = size_of_one(tmp_path)
    cache = TokenCache(tmp_path / "cache", max_bytes=int(3.5 * one))
    for age, key in enumerate(KEYS[:3]):
        cache.put(key, tokens(age))
        stamp = time.time() - 100 + age
        os.utime(cache._path(key), (stamp, stamp))
    assert cache.get(KEYS[0]) is not None

    cache.put(KEYS[3], tokens(3))

    assert cache.get(KEYS[1]) is None
    assert cache.get(KEYS[0]) is not None
    assert cache.get(KEYS[2]) is not None
    assert cache.get(KEYS[3]) is not None


@settings(max_examples=25, deadline=None)
@given(puts=st.lists(st.tuples(st.integers(0, 39), st.integers(1, 30)), max_size=40), bound=st.integers(0, 20_000))
def test_the_folder_never_exceeds_its_bound(tmp_path_factory, puts, bound):
    cache = TokenCache(tmp_path_factory.mktemp("cache"), max_bytes=bound)
    for which, columns in puts:
        cache.put(KEYS[which], tokens(which, columns=columns))
        assert sum(path.stat().st_size for path in files(cache)) <= bound


def test_entries_of_an_earlier_process_count_towards_the_bound(tmp_path):
    one = size_of_one(tmp_path)
    for key in KEYS[:8]:
        TokenCache(tmp_path / "cache").put(key, tokens())
    TokenCache(tmp_path / "cache", max_bytes=4 * one).put(KEYS[8], tokens())
    assert sum(path.stat().st_size for path in files(TokenCache(tmp_path / "cache"))) <= 4 * one


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-40],
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not a zip file",
        lambda content: content[:200] + bytes([content[200] ^ 255]) + content[201:],
    ],
)
def test_a_damaged_entry_counts_as_absent_is_removed_and_can_be_stored_again(tmp_path, damage, caplog):
    cache = TokenCache(tmp_path)
    cache.put(KEYS[0], tokens())
    path = cache._path(KEYS[0])
    path.write_bytes(damage(path.read_bytes()))

    with caplog.at_level(logging.WARNING):
        assert cache.get(KEYS[0]) is None

    assert not path.exists()
    assert "damaged cache entry" in caplog.text
    cache.put(KEYS[0], tokens())
    assert cache.get(KEYS[0]) is not None


def test_an_entry_with_pickled_objects_is_refused(tmp_path):
    cache = TokenCache(tmp_path)
    path = cache._path(KEYS[0])
    path.parent.mkdir(parents=True)
    np.savez(path, patch=np.array([{"a": 1}], dtype=object), cls=np.zeros(1))
    assert cache.get(KEYS[0]) is None


def test_a_disk_that_cannot_be_written_costs_speed_only(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = TokenCache(blocked / "cache")
    with caplog.at_level(logging.WARNING):
        returned = cache.put(KEYS[0], tokens())
        cache.put(KEYS[1], tokens())
    assert torch.equal(returned.patch, tokens().patch.half().float())
    assert cache.get(KEYS[0]) is None
    assert len([r for r in caplog.records if "cannot be cached" in r.message]) == 1


def test_files_that_a_killed_process_left_half_written_are_swept_up(tmp_path):
    cache = TokenCache(tmp_path)
    old, fresh = tmp_path / "00" / ".writing-old", tmp_path / "00" / ".writing-fresh"
    old.parent.mkdir()
    for path in (old, fresh):
        path.write_bytes(b"half an entry")
    os.utime(old, (1, 1))

    cache.put(KEYS[0], tokens())

    assert not old.exists()
    assert fresh.exists()


def test_a_negative_bound_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="max_bytes=-1"):
        TokenCache(tmp_path, max_bytes=-1)


def test_the_default_folder_is_in_the_home_of_selfsame(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path))
    assert TokenCache().folder == tmp_path / "tokens"
    assert TokenCache().max_bytes == 10**10


def _hammer(folder, bound, worker, faults):
    cache = TokenCache(folder, max_bytes=bound)
    for step in range(120):
        which = (step * (worker + 3)) % len(KEYS)
        expected = tokens(which)
        found = cache.get(KEYS[which])
        if found is None:
            cache.put(KEYS[which], expected)
        elif not torch.equal(found.patch, expected.patch.half().float()):
            faults.put((worker, which))


def test_several_processes_share_a_folder_without_seeing_half_an_entry(tmp_path):
    bound = 12 * size_of_one(tmp_path)
    context = multiprocessing.get_context("fork")
    faults = context.Queue()
    workers = [context.Process(target=_hammer, args=(tmp_path / "cache", bound, n, faults)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert faults.empty()
    total = sum(path.stat().st_size for path in files(TokenCache(tmp_path / "cache")))
    assert total <= bound * 1.3
    assert not list((tmp_path / "cache").rglob(".writing-*"))


def test_several_threads_share_one_cache(tmp_path):
    cache = TokenCache(tmp_path / "cache", max_bytes=10 * size_of_one(tmp_path))

    def work(worker):
        for step in range(60):
            which = (step * (worker + 3)) % len(KEYS)
            if cache.get(KEYS[which]) is None:
                cache.put(KEYS[which], tokens(which))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(path.stat().st_size for path in files(cache)) <= cache.max_bytes
