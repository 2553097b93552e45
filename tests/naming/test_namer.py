import hashlib

import numpy as np
import pytest
import text_checkpoints
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate, one_hot

from diffcut_bench.errors import UserError
from diffcut_bench.naming import ClipEncoder, Namer
from diffcut_bench.naming.namer import best_synonyms, pool_segments, word_embeddings

CPU = torch.device("cpu")


def coloured(*rows: str) -> torch.Tensor:
    """An image of 16-pixel fields: r, g, b, w."""
    colours = {"r": (1.0, 0, 0), "g": (0, 1.0, 0), "b": (0, 0, 1.0), "w": (1.0, 1, 1)}
    fields = torch.tensor([[colours[field] for field in row] for row in rows]).permute(2, 0, 1)
    return fields.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)[None]


def test_planted_embeddings_give_the_planted_names():
    images = torch.cat([coloured("rgb", "rgb"), coloured("bbr", "bbr")])
    segments = torch.zeros(2, 32, 48, dtype=torch.long)
    segments[:, :, 16:32] = 1
    segments[:, :, 32:] = 2
    names = Namer(text_checkpoints.Colours()).for_classes(["blue", "green", "red"], None, CPU)(images, segments)
    assert names.classes.tolist() == [[2, 1, 0], [0, 0, 2]]
    assert torch.equal(names.labels, names.classes.gather(1, segments.flatten(1)).view_as(segments))
    assert names.scores.min() > 0.99


def test_the_best_synonym_counts_not_their_mean():
    # Red's mean with a wrong synonym (0.5) lies below the other class's 0.6.
    similarities = torch.tensor([[1.0, 0.0, 0.6], [0.2, 0.3, 0.9]])
    assert best_synonyms(similarities, [2, 1]).tolist() == torch.tensor([[1.0, 0.6], [0.3, 0.9]]).tolist()
    namer = Namer(text_checkpoints.Colours(), words={"warm": "blue|red"}).for_classes(["green", "warm"], None, CPU)
    names = namer(coloured("rgb"), torch.arange(3).repeat_interleave(16).expand(1, 16, 48))
    assert names.classes.tolist() == [[1, 0, 1]]


def test_background_words_become_the_background_class():
    settings = {"background_words": ["green", "blue", "red"]}
    namer = Namer(text_checkpoints.Colours(), **settings).for_classes(["red", "background"], 1, CPU)
    assert namer.words == (("red",), ("green", "blue"))
    names = namer(coloured("rgb"), torch.arange(3).repeat_interleave(16).expand(1, 16, 48))
    assert names.classes.tolist() == [[0, 1, 1]]


def test_scores_are_a_softmax_at_the_temperature():
    images, segments = coloured("w"), torch.zeros(1, 16, 16, dtype=torch.long)
    names = Namer(text_checkpoints.Colours(), temperature=0.5).for_classes(["red", "grey"], None, CPU)(images, segments)
    cosines = np.array([3**-0.5, 1.0]) / 0.5
    assert names.scores.item() == pytest.approx(np.exp(cosines[1]) / np.exp(cosines).sum(), abs=1e-6)
    with pytest.raises(ValueError, match="temperature must be positive"):
        Namer(text_checkpoints.Colours(), temperature=0)


def test_segments_are_means_over_their_pixels():
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(2, 5, 3, 4, generator=generator)
    segments = torch.randint(0, 4, (2, 10, 14), generator=generator)
    segments[1][segments[1] == 2] = 3  # an id without a pixel
    found = pool_segments(dense, segments)
    for image in range(2):
        for segment in range(4):
            pixels = [
                dense[image, :, y * 3 // 10, x * 4 // 14]
                for y in range(10)
                for x in range(14)
                if segments[image, y, x] == segment
            ]
            expected = torch.stack(pixels).mean(dim=0) if pixels else torch.zeros(5)
            torch.testing.assert_close(found[image, segment], expected, rtol=1e-4, atol=1e-5)


@given(st.data())
@settings(max_examples=40)
def test_released_pooling_is_the_textbooks(data):
    """Each mask brought to the map by nearest-exact; sums divided by areas; nothing where no patch is left."""
    sides = [data.draw(st.integers(1, 12)) for _ in range(4)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    dense = torch.randn(2, 3, *sides[:2], generator=generator)
    segments = torch.randint(0, 5, (2, *sides[2:]), generator=generator)
    found = pool_segments(dense, segments, "nearest_exact")
    masks = one_hot(segments, int(segments.max()) + 1).permute(0, 3, 1, 2).float()
    masks = interpolate(masks, tuple(sides[:2]), mode="nearest-exact")
    sums, areas = torch.einsum("bchw,bshw->bsc", dense, masks), masks.sum(dim=(2, 3))[..., None]
    torch.testing.assert_close(found, sums / (areas + 1e-8), rtol=1e-4, atol=1e-5)


def test_a_segment_between_the_centres_of_patches_counts_by_pixels_only():
    dense = torch.eye(4).view(1, 4, 2, 2)
    segments = torch.zeros(1, 8, 8, dtype=torch.long)
    segments[0, 1, :4] = 1
    assert pool_segments(dense, segments)[0, 1].tolist() == [1, 0, 0, 0]
    assert pool_segments(dense, segments, "nearest_exact")[0].tolist() == [[0.25] * 4, [0] * 4]


def test_segments_that_are_patches_have_their_own_features_either_way():
    """So that MaskCLIP's names do not depend on the protocol."""
    dense, patches = torch.randn(1, 5, 4, 6), torch.arange(24).view(1, 4, 6)
    segments = patches.repeat_interleave(3, dim=1).repeat_interleave(2, dim=2)
    for pooling in ("pixels", "nearest_exact"):
        torch.testing.assert_close(pool_segments(dense, segments, pooling)[0].T, dense[0].flatten(1))


def test_words_and_phrases_come_from_files(tmp_path):
    classes, phrases = tmp_path / "classes.txt", tmp_path / "phrases.txt"
    classes.write_text("0:background,green\n1:warm,red,crimson\n2:cold,blue")
    phrases.write_text("a {}\nthe {}\n")
    given = {"classes_file": str(classes), "templates_file": str(phrases), "pooling": "nearest_exact"}
    classes_of = (["warm", "cold", "background"], 2, CPU)
    namer = Namer(text_checkpoints.Spoken(), **given).for_classes(*classes_of)
    assert namer.words == (("warm", "red", "crimson"), ("cold", "blue"), ("background", "green"))
    names = namer(coloured("rgb"), torch.arange(3).repeat_interleave(16).expand(1, 16, 48))
    assert names.classes.tolist() == [[0, 2, 1]]
    assert namer.encoder.heard[:3] == ["a warm", "the warm", "a red"]
    identity = namer.identity()
    assert identity["classes_sha256"] == hashlib.sha256(classes.read_bytes()).hexdigest()
    assert identity["templates_sha256"] == hashlib.sha256(phrases.read_bytes()).hexdigest()
    assert (identity["templates"], identity["pooling"]) == (["a {}", "the {}"], "nearest_exact")
    own = Namer(text_checkpoints.Spoken(), **given, background_words=["red"]).for_classes(
        ["warm", "cold", "background"], 2, CPU
    )
    assert own.words[2] == ("red",), "what the user says comes before the file"


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"pooling": "nearest"}, "pooling must be pixels | nearest_exact"),
        ({"words": {"red": "crimson"}}, "two sources of class names"),
        ({"background_words": []}, "the background has no word"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path, settings, what):
    (tmp_path / "classes.txt").write_text("0:background\n1:red")
    with pytest.raises((ValueError, UserError)) as caught:
        Namer(text_checkpoints.Colours(), classes_file=str(tmp_path / "classes.txt"), **settings).for_classes(
            ["red", "background"], 1, CPU
        )
    assert what in str(caught.value)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.inference_mode()
def test_a_real_network_names_what_its_word_is_planted_at(tmp_path, monkeypatch, kind):
    """Each word means what one half of the image looks like."""
    text_checkpoints.write_checkpoint(tmp_path, kind)
    encoder = ClipEncoder("tiny", str(tmp_path), image_size=16)
    images = torch.zeros(1, 3, 16, 16)
    images[..., 8:] = 1
    segments = torch.zeros(1, 16, 16, dtype=torch.long)
    segments[..., 8:] = 1
    halves = pool_segments(encoder(images), segments)[0]
    monkeypatch.setattr(encoder, "text", lambda texts: torch.stack([halves[int("cat" in text)] for text in texts]))
    names = Namer(encoder).for_classes(["cat", "disc"], None, CPU)(images, segments)
    assert names.classes.tolist() == [[1, 0]], "halves[1], the bright one, is what cat means"


def test_the_identity_covers_words_and_weights_but_not_the_temperature():
    def identity(**settings):
        return Namer(text_checkpoints.Colours(), **settings).for_classes(["red", "blue"], None, CPU).identity()

    assert identity() == identity(temperature=1.0)
    assert identity() != identity(words={"red": "crimson"})
    assert identity() != identity(pooling="nearest_exact")
    assert identity()["encoder"] == "colours"


def test_templates_are_averaged_as_unit_vectors():
    planted = {"a cat": [3.0, 0.0], "the cat": [0.0, 0.5], "a sofa": [0.0, 2.0], "the sofa": [0.0, 7.0]}

    def encode(texts):
        return torch.tensor([planted[text] for text in texts])

    found = word_embeddings(encode, ["cat", "sofa"], ["a {}", "the {}"])
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[half, half], [0.0, 1.0]]))


def test_many_texts_are_read_a_few_at_a_time():
    read = []

    def encode(texts):
        read.append(len(texts))
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    words = ["x" * (length % 50) for length in range(150)]
    found = word_embeddings(encode, words, ["{}", "a {}", "the {}"])
    assert max(read) < sum(read) == 450
    one = [word_embeddings(encode, [word], ["{}", "a {}", "the {}"])[0] for word in words]
    torch.testing.assert_close(found, torch.stack(one))
